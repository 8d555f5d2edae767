/* What Python finds in the library; all else is hidden. */
#pragma once
#define API __attribute__((visibility("default")))
