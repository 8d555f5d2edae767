"""What each rank called, where it is, how it ends: compared while all goes well, told when it does not."""
