/* How a thread waits until MPI may have something for it, without keeping the core from those who compute.
 *
 * MPI moves data only while somebody calls it, and offers nothing to sleep on. But over TCP a library keeps
 * its sockets in an epoll set, and a set is a file that can be slept on like any other: the kernel wakes the
 * sleeper when a message comes, where naps of a guessed length come too late or ask in vain.
 *
 * No library promises that. So the sets must earn their trust: a sleep that a set ended, after which MPI had
 * something, speaks for them; something that was there when a sleep ran out, unannounced, speaks against
 * them (memory of the node, or another network than TCP). Without trust no sleep is longer than the nap that
 * would have been taken. A set that is ready again and again, and MPI has nothing, is somebody else's and is
 * dropped.
 *
 * The state is one a process: one thread at a time calls MPI. Only `ring` may come from others.
 */
#define _GNU_SOURCE
#include "rest.h"

#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define MOST_SETS 8
#define TRUSTED 16       /* announced movements, less MISSED for each that was not, from which sets are trusted */
#define MOST_TRUST 64
#define MISSED 8
#define MOST_BARREN 200  /* times in a row that a set was ready at once, for nothing, until it is dropped */
#define AT_ONCE_NS 5000  /* a sleep that ends sooner was none */
/* Who gives the core away and gets it back so late shares it with others. In such company a thread sleeps at
 * once: one that wakes is served before those that run, one that yields after all of them. */
#define SHARED_NS 5000
#define SLEEPS_BEFORE_YIELD 64

static struct pollfd files[1 + MOST_SETS]; /* the bell, then the sets */
static int file_count, barren[1 + MOST_SETS];
static unsigned announced; /* by these files, the last sleep */
static int at_once, ran_out, trust, sleeps_in_company;
static _Atomic int sleeping;

int distrain_rest_watch(const int *sets, int count)
{
    if (file_count || count <= 0)
        return file_count ? files[0].fd : -1;
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell < 0)
        return -1;
    files[0] = (struct pollfd){.fd = bell, .events = POLLIN};
    file_count = 1;
    for (int i = 0; i < count && i < MOST_SETS; i++)
        files[file_count++] = (struct pollfd){.fd = sets[i], .events = POLLIN};
    return bell;
}

void distrain_rest_ring(void)
{
    uint64_t one = 1;
    if (file_count && atomic_load(&sleeping) && write(files[0].fd, &one, sizeof one) < 0)
        return; /* it is ringing already */
}

static void sleep_on_files(int64_t longest)
{
    int64_t begin = now_ns();
    struct timespec timeout = {.tv_sec = longest / 1000000000, .tv_nsec = longest % 1000000000};
    atomic_store(&sleeping, 1);
    int ready = ppoll(files, (nfds_t)file_count, &timeout, NULL);
    atomic_store(&sleeping, 0);
    announced = 0;
    ran_out = ready == 0;
    at_once = now_ns() - begin < AT_ONCE_NS;
    for (int i = 1; ready > 0 && i < file_count; i++)
        announced |= (unsigned)(files[i].revents != 0) << i;
    uint64_t rings;
    if (ready > 0 && files[0].revents && read(files[0].fd, &rings, sizeof rings) < 0)
        return; /* somebody else has read it: nothing is lost */
}

void distrain_rest(int64_t waited, int64_t spin, int64_t longest, int patient)
{
    int trusted = file_count > 1 && trust >= TRUSTED;
    if (waited < spin && !(trusted && sleeps_in_company)) {
        int64_t begin = now_ns();
        sched_yield();
        if (now_ns() - begin > SHARED_NS)
            sleeps_in_company = SLEEPS_BEFORE_YIELD;
        return;
    }
    sleeps_in_company -= sleeps_in_company > 0;
    int64_t nap = waited / 10 < longest ? waited / 10 : longest;
    if (file_count > 1) {
        sleep_on_files(trusted && patient ? longest : nap);
        ran_out &= patient;
    } else {
        struct timespec t = {.tv_nsec = nap};
        nanosleep(&t, NULL);
    }
}

static void drop(int file)
{
    files[file] = files[--file_count];
    barren[file] = barren[file_count];
}

void distrain_rest_told(int moved)
{
    if (announced && moved)
        trust += trust < MOST_TRUST;
    else if (ran_out && moved)
        trust -= trust > -MOST_TRUST ? MISSED : 0;
    for (int i = file_count - 1; announced && i > 0; i--) {
        if (!(announced & 1u << i) || moved)
            barren[i] = 0;
        else if (at_once && ++barren[i] > MOST_BARREN)
            drop(i);
    }
    announced = ran_out = 0;
}
