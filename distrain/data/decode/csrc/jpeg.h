/* What the parts of the decoder share: status codes, the header of an image, tables, the context.
 *
 * The way of an image, and the file that describes each stop:
 *
 *   header.c    markers -> Frame: size, components, quantisation and Huffman tables
 *   huffman.c   code lengths -> look-up tables
 *   blob.c      the bits of the scan; the indexed form, in which a decoder can start in the middle
 *   entropy.h   bits -> the 64 coefficients of a block
 *   idct.h      coefficients -> 8 x 8 samples
 *   kernel.c    the blocks that a crop needs -> one plane of samples a component
 *   taps.h      crop and output size -> weights of the resize
 *   resample.h  planes -> planes of the output's size (antialiased), in tiles; colour.h -> RGB
 *   decoder.c   one image from end to end, and the functions that Python calls
 *   raw.c       the same for pictures that are stored as pixels, RGB or YCbCr
 *
 * kernel.c is compiled three times, for any processor, AVX2 and AVX-512; all give the same bits.
 * "T.81" in comments is ITU-T Rec. T.81 (1992), the JPEG standard.
 */
#ifndef DISTRAIN_JPEG_H
#define DISTRAIN_JPEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MAX_COMPONENTS = 3,
    TABLE_SLOTS = 4,    /* a JPEG has up to four tables of each kind */
    LOOKUP_BITS = 11,   /* Huffman look-up: 16 KiB a table; those of luma and chroma fit a 48 KiB L1 cache */
    MAX_SIDE = 4096,    /* longest side of an output */
    MAX_TAPS = 1024,    /* widest filter: one output pixel averages at most 512 source pixels an axis */
    SCAN_PADDING = 16,  /* readable bytes behind every scan: the bit reader loads 8 bytes at a time */
    LANES = 32          /* of the widest vectors: planes are padded to multiples of it, so that loops need no tails */
};

typedef enum {
    STATUS_OK = 0,
    STATUS_NOT_JPEG,
    STATUS_TRUNCATED,
    STATUS_BAD_SEGMENT,
    STATUS_BAD_TABLE,
    STATUS_MISSING_TABLE,
    STATUS_BAD_SCAN,
    STATUS_BAD_BLOB,
    STATUS_BAD_CROP,
    STATUS_BAD_OUTPUT,
    STATUS_NO_MEMORY,
    STATUS_BUFFER,
    STATUS_BAD_PIXELS,
    /* Healthy images that this decoder does not do; another decoder may. */
    STATUS_PROGRESSIVE,
    STATUS_ARITHMETIC,
    STATUS_PRECISION,
    STATUS_COMPONENTS,
    STATUS_SAMPLING,
    STATUS_SCANS,
    STATUS_HEIGHT,
    STATUS_RESTARTS,
    STATUS_REDUCTION,
    STATUS_COUNT
} Status;

/* A memory block that only grows: contexts keep theirs from image to image. */
typedef struct {
    uint8_t *data;
    size_t size;
} Buffer;

/* One Huffman table and its look-up form (layout of an entry: huffman.c). */
typedef struct {
    uint64_t entries[1 << LOOKUP_BITS];
    int32_t last_code[17];    /* largest code of each length, -1: none */
    int32_t symbol_offset[17]; /* symbols[code + offset] for a code of that length */
    uint8_t counts[16];       /* number of codes of length 1..16, as in the file */
    uint8_t symbols[256];
    int symbol_count;
    bool is_dc;
    bool built;
} HuffmanTable;

typedef struct {
    uint16_t step[64];              /* as in the file: zigzag order */
    _Alignas(64) float factor[64];  /* for the IDCT: transposed, with its scaling folded in */
    bool built;
} QuantTable;

/* What the header says. h and v are samples per MCU and axis, in blocks: 1 or 2. */
typedef struct {
    int width, height;            /* pixels */
    int components;               /* 1 (grey) or 3 */
    int h, v;                     /* of the first component; the others have 1 x 1 */
    bool is_rgb;                  /* three components without colour transform */
    int mcu_columns, mcu_rows;
    int restart_interval;         /* MCUs between restart markers, 0: none */
    size_t header_size;           /* bytes up to the first byte of the scan */
    const HuffmanTable *dc[MAX_COMPONENTS], *ac[MAX_COMPONENTS];
    const QuantTable *quant[MAX_COMPONENTS];
} Frame;

/* The entropy-coded bytes, without stuffing, followed by SCAN_PADDING readable bytes. */
typedef struct {
    const uint8_t *bytes;
    size_t size;
    const uint8_t *checkpoints;   /* NULL: the scan can only be read from its start */
} Scan;

/* Where to start reading: bit position in the scan and DC predictors. */
typedef struct {
    uint32_t bit;
    int16_t dc[MAX_COMPONENTS];
} Checkpoint;

/* Samples, decoded or stored as they are. data points at sample (x, y) = (left, top) of the component. */
typedef struct {
    uint8_t *data; /* only decode_region writes */
    ptrdiff_t stride;
    int left, top, width, height;
} Plane;

/* MCUs [left, right) x [top, bottom). */
typedef struct {
    int left, top, right, bottom;
} McuRange;

/* Weights of a separable filter along one axis: output o is the sum over k < count of
 * weights[o * count + k] / 32768 * input[start[o] + k]. Each weight is there twice, in both halves of 32
 * bits: processors load and repeat 32 bits in one step, 16 bits in two. */
typedef struct {
    int count;
    int outputs;       /* rounded up to a multiple of LANES; those past the end repeat the last */
    int first, last;   /* the filter reads inputs [first, last) of the component */
    int32_t *start;    /* relative to first */
    uint32_t *weights;
} Taps;

typedef struct {
    Buffer starts, weights, windows, sums;
    Taps taps;
} TapStore;

/* One axis of a resize. */
typedef struct {
    int crop_start, crop_length; /* pixels of the picture */
    int outputs;                 /* pixels wanted */
    bool mirror;                 /* in reverse order */
    int samples;                 /* of a component that has one for two pixels */
    bool smooth;                 /* whether libjpeg would enlarge such a component with its triangle filter */
} Axis;

/* Rows of samples that a resize reads, and room for what the pass over rows makes of them. */
typedef struct {
    const uint8_t *first; /* the first sample that is read */
    ptrdiff_t stride;
    int width;            /* samples of a row that are read; LANES - 1 more are readable */
    const Taps *rows;
    int16_t *half;        /* room for int16 [width rounded up to LANES][LANES] */
} Source;

enum { COLOUR_YCC, COLOUR_RGB, COLOUR_GREY, COLOUR_PIXELS };

/* A resize of one picture. */
typedef struct {
    int kind; /* COLOUR_YCC, COLOUR_RGB: three sources; COLOUR_GREY: one; COLOUR_PIXELS: one of interleaved RGB */
    Source sources[MAX_COMPONENTS];
    const Taps *columns[MAX_COMPONENTS]; /* of each component */
    bool is_far;                         /* the samples come from main memory: they are fetched ahead */
} Resize;

/* The hot functions, one set a processor family. */
typedef struct {
    const char *name;
    Status (*decode_region)(const Frame *, const Scan *, McuRange, const Plane *);
    Status (*index_scan)(const Frame *, const Scan *, uint8_t *checkpoints);
    Status (*taps_build)(const Axis *, TapStore *full, TapStore *half);
    void (*resize)(const Resize *, int width, int height, uint8_t *out);
} Kernel;

extern const Kernel kernel_portable;
extern const Kernel kernel_avx2, kernel_avx512; /* only linked on x86-64 */

/* One decoder: tables and scratch memory. Not shared between threads at the same time. */
typedef struct Decoder {
    const Kernel *kernel;
    HuffmanTable dc[TABLE_SLOTS], ac[TABLE_SLOTS];
    QuantTable quant[TABLE_SLOTS];
    Buffer scan, planes[MAX_COMPONENTS], half[MAX_COMPONENTS];
    TapStore rows[2], columns[2]; /* for components with a sample for each pixel; with one for two */
} Decoder;

#define EXPORT __attribute__((visibility("default")))

/* decoder.c: whether a crop (x, y, width, height) lies inside a picture. */
bool crop_is_inside(const int32_t crop[4], int width, int height);

/* decoder.c: room for size bytes, aligned to 64; NULL when memory is out. Old contents are lost. */
uint8_t *buffer_reserve(Buffer *buffer, size_t size);

/* decoder.c: the filters of both axes for each component of a picture; decoder->rows and ->columns own them. */
Status frame_taps(Decoder *decoder, const Frame *frame, const int32_t crop[4], bool mirror, int width,
                  int height, const Taps *rows[], const Taps *columns[]);

/* decoder.c: set a source of a resize: rows of `width` samples. */
Status set_source(Decoder *decoder, Resize *resize, int number, const uint8_t *first, ptrdiff_t stride, int width,
                  const Taps *rows);

/* header.c */
Status header_read(Decoder *decoder, const uint8_t *bytes, size_t size, Frame *frame);
Status header_copy(const uint8_t *bytes, size_t header_size, uint8_t *out, size_t *out_size);

/* huffman.c */
Status huffman_build(HuffmanTable *table, const uint8_t *counts, const uint8_t *symbols, int count,
                     bool is_dc);

/* blob.c: the last checkpoint at or before an MCU column (the kernels need it) */
void checkpoint_read(const Scan *scan, const Frame *frame, int row, int column, Checkpoint *found);

static inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

static inline uint32_t load_u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }

static inline uint32_t load_u32(const uint8_t *p) { return load_u16(p) | load_u16(p + 2) << 16; }

static inline void store_u16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void store_u32(uint8_t *p, uint32_t value)
{
    store_u16(p, value);
    store_u16(p + 2, value >> 16);
}

#endif
