// What Python calls: checksums of one stretch of memory, of many, and of a file on its way into memory.

#include "crc32.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define PIECE (256 << 10)  // of a file: it is still in the cache of the core when it is checked

enum { DONE = 0, ENDS_EARLY = 1, CANNOT_READ = 2, CANNOT_WRITE = 3, NO_MEMORY = 4 };

// What has come of a file so far; `distrain.data.checksum.native` has the same.
typedef struct {
    int64_t done;   // bytes
    uint32_t crc;   // of them, and of what came before
    int32_t error;  // errno
} Progress;

EXPORT int distrain_checksum_abi(void) { return 1; }

EXPORT uint32_t distrain_checksum_crc32(int kernel, uint32_t crc, const uint8_t *data, size_t size) {
    return crc32_of(kernel, crc, data, size);
}

// Checksums of `count` stretches that begin at `starts` in `data`.
EXPORT void distrain_checksum_each(int kernel, const uint8_t *data, const int64_t *starts, const int64_t *sizes,
                                   int64_t count, uint32_t *crcs) {
    for (int64_t i = 0; i < count; i++) crcs[i] = crc32_of(kernel, 0, data + starts[i], (size_t)sizes[i]);
}

static int write_all(int file, const uint8_t *data, size_t size, int64_t at) {
    while (size) {
        ssize_t written = pwrite(file, data, size, (off_t)at);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return 0;
        data += written, size -= (size_t)written, at += written;
    }
    return 1;
}

// Read `size` bytes of a file from `offset` on and check each piece at once. They go to `memory`, or, if
// `target` is a file (not -1), are written there from `at` on.
EXPORT int distrain_checksum_transfer(int kernel, int source, int64_t offset, uint8_t *memory, int target, int64_t at,
                                      int64_t size, Progress *progress) {
    uint8_t *between = target < 0 ? NULL : malloc(PIECE);
    int status = target >= 0 && between == NULL ? NO_MEMORY : DONE;
    while (status == DONE && progress->done < size) {
        int64_t left = size - progress->done;
        uint8_t *piece = between ? between : memory + progress->done;
        ssize_t got = pread(source, piece, left < PIECE ? (size_t)left : PIECE, (off_t)(offset + progress->done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            status = got < 0 ? CANNOT_READ : ENDS_EARLY;
            progress->error = got < 0 ? errno : 0;
            break;
        }
        progress->crc = crc32_of(kernel, progress->crc, piece, (size_t)got);
        if (between && !write_all(target, between, (size_t)got, at + progress->done)) {
            status = CANNOT_WRITE;
            progress->error = errno;
            break;
        }
        progress->done += got;
    }
    free(between);
    return status;
}
