/* The header of a JPEG: marker segments from SOI to SOS (T.81 annex B). Nothing in it is believed:
 * every length, number and reference is checked before it is used. */
#include <string.h>

#include "jpeg.h"

enum {
    SOF0 = 0xc0, SOF1 = 0xc1, SOF2 = 0xc2, SOF15 = 0xcf, DHT = 0xc4, JPG = 0xc8, DAC = 0xcc,
    SOI = 0xd8, EOI = 0xd9, SOS = 0xda, DQT = 0xdb, DRI = 0xdd, APP0 = 0xe0, APP14 = 0xee, APP15 = 0xef,
    COM = 0xfe
};

/* One marker segment: its parameters, without the two bytes of length. */
typedef struct {
    int marker;
    const uint8_t *bytes;
    size_t size;
} Segment;

/* What is only needed while a header is read. */
typedef struct {
    uint8_t ids[MAX_COMPONENTS], quant_slots[MAX_COMPONENTS];
    uint32_t quant_seen, dc_seen, ac_seen; /* bit i: this image defined table i (contexts keep old ones) */
    bool jfif;
    int adobe_transform; /* -1: no Adobe segment */
} Notes;

/* Natural (row * 8 + column) place of the k-th coefficient in zigzag order (T.81 figure A.6). */
static const uint8_t zigzag[64] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

static int read_u16(const uint8_t *p) { return p[0] << 8 | p[1]; }

/* Find the segment at *position and step over it. EOI has none; its size is 0. */
static Status next_segment(const uint8_t *bytes, size_t size, size_t *position, Segment *segment)
{
    size_t at = *position;
    if (at >= size)
        return STATUS_TRUNCATED;
    if (bytes[at] != 0xff)
        return STATUS_BAD_SEGMENT;
    while (at < size && bytes[at] == 0xff) /* fill bytes are allowed in front of a marker */
        at++;
    if (at >= size)
        return STATUS_TRUNCATED;
    *segment = (Segment){bytes[at++], NULL, 0};
    if (segment->marker == EOI)
        return STATUS_TRUNCATED; /* the image ends before its scan */
    if (segment->marker < SOF0 || (segment->marker >= 0xd0 && segment->marker <= SOI))
        return STATUS_BAD_SEGMENT;
    if (size - at < 2)
        return STATUS_TRUNCATED;
    size_t length = (size_t)read_u16(bytes + at);
    if (length < 2)
        return STATUS_BAD_SEGMENT;
    if (size - at < length)
        return STATUS_TRUNCATED;
    segment->bytes = bytes + at + 2;
    segment->size = length - 2;
    *position = at + length;
    return STATUS_OK;
}

/* Steps and the factors of the IDCT: a coefficient of row r and column c is multiplied by
 * step * s(r) * s(c) / 8 with s(0) = 1, s(k) = sqrt(2) cos(k pi / 16). */
static void build_quant(QuantTable *table, const uint16_t step[64])
{
    static const double scale[8] = {1.0, 1.387039845, 1.306562965, 1.175875602,
                                    1.0, 0.785694958, 0.541196100, 0.275899379};
    if (table->built && memcmp(table->step, step, sizeof table->step) == 0)
        return;
    memcpy(table->step, step, sizeof table->step);
    for (int k = 0; k < 64; k++) {
        int row = zigzag[k] >> 3, column = zigzag[k] & 7;
        table->factor[column * 8 + row] = (float)(step[k] * scale[row] * scale[column] / 8);
    }
    table->built = true;
}

static Status read_quant_tables(Decoder *decoder, Segment segment, Notes *notes)
{
    while (segment.size > 0) {
        int wide = segment.bytes[0] >> 4, slot = segment.bytes[0] & 15;
        size_t need = 1 + (wide ? 128 : 64);
        if (wide > 1 || slot >= TABLE_SLOTS || segment.size < need)
            return STATUS_BAD_TABLE;
        uint16_t step[64];
        for (int k = 0; k < 64; k++) {
            step[k] = (uint16_t)(wide ? read_u16(segment.bytes + 1 + 2 * k) : segment.bytes[1 + k]);
            if (step[k] == 0)
                return STATUS_BAD_TABLE;
        }
        build_quant(&decoder->quant[slot], step);
        notes->quant_seen |= 1u << slot;
        segment.bytes += need;
        segment.size -= need;
    }
    return STATUS_OK;
}

static Status read_huffman_tables(Decoder *decoder, Segment segment, Notes *notes)
{
    while (segment.size > 0) {
        int is_ac = segment.bytes[0] >> 4, slot = segment.bytes[0] & 15, count = 0;
        if (is_ac > 1 || slot >= TABLE_SLOTS || segment.size < 17)
            return STATUS_BAD_TABLE;
        for (int i = 1; i <= 16; i++)
            count += segment.bytes[i];
        if (count > 256 || segment.size < 17 + (size_t)count)
            return STATUS_BAD_TABLE;
        HuffmanTable *table = is_ac ? &decoder->ac[slot] : &decoder->dc[slot];
        Status status = huffman_build(table, segment.bytes + 1, segment.bytes + 17, count, !is_ac);
        if (status != STATUS_OK)
            return status;
        *(is_ac ? &notes->ac_seen : &notes->dc_seen) |= 1u << slot;
        segment.bytes += 17 + count;
        segment.size -= 17 + (size_t)count;
    }
    return STATUS_OK;
}

static Status read_frame(Segment segment, Frame *frame, Notes *notes)
{
    if (frame->components != 0 || segment.size < 6)
        return STATUS_BAD_SEGMENT;
    const uint8_t *p = segment.bytes;
    if (p[0] != 8)
        return STATUS_PRECISION;
    frame->height = read_u16(p + 1);
    frame->width = read_u16(p + 3);
    if (frame->height == 0)
        return STATUS_HEIGHT; /* given by a DNL marker behind the scan */
    if (frame->width == 0 || p[5] == 0)
        return STATUS_BAD_SEGMENT;
    if (p[5] != 1 && p[5] != 3)
        return STATUS_COMPONENTS;
    if (segment.size != 6 + 3 * (size_t)p[5])
        return STATUS_BAD_SEGMENT;
    frame->components = p[5];
    for (int i = 0; i < frame->components; i++) {
        const uint8_t *component = p + 6 + 3 * i;
        int h = component[1] >> 4, v = component[1] & 15;
        notes->ids[i] = component[0];
        notes->quant_slots[i] = component[2];
        if (h < 1 || h > 4 || v < 1 || v > 4 || component[2] >= TABLE_SLOTS)
            return STATUS_BAD_SEGMENT;
        if (frame->components == 1)
            h = v = 1; /* a lone component is not interleaved: its MCU is one block (T.81 A.2.2) */
        if (h > 2 || v > 2 || (i > 0 && (h != 1 || v != 1)))
            return STATUS_SAMPLING;
        if (i == 0) {
            frame->h = h;
            frame->v = v;
        }
    }
    frame->mcu_columns = (frame->width + 8 * frame->h - 1) / (8 * frame->h);
    frame->mcu_rows = (frame->height + 8 * frame->v - 1) / (8 * frame->v);
    return STATUS_OK;
}

static void read_application(Segment segment, Notes *notes)
{
    if (segment.marker == APP0 && segment.size >= 5 && memcmp(segment.bytes, "JFIF", 5) == 0)
        notes->jfif = true;
    if (segment.marker == APP14 && segment.size >= 12 && memcmp(segment.bytes, "Adobe", 5) == 0)
        notes->adobe_transform = segment.bytes[11];
}

/* Whether three components are RGB, by the rules that libjpeg made customary. */
static bool is_rgb(const Frame *frame, const Notes *notes)
{
    if (frame->components != 3 || notes->jfif)
        return false;
    if (notes->adobe_transform >= 0)
        return notes->adobe_transform == 0;
    return memcmp(notes->ids, "RGB", 3) == 0;
}

static Status read_scan_header(Decoder *decoder, Segment segment, Frame *frame, const Notes *notes)
{
    const uint8_t *p = segment.bytes;
    if (frame->components == 0 || segment.size < 4 || segment.size != 4 + 2 * (size_t)p[0])
        return STATUS_BAD_SEGMENT;
    if (p[0] != frame->components)
        return STATUS_SCANS;
    for (int i = 0; i < frame->components; i++) {
        int dc = p[2 + 2 * i] >> 4, ac = p[2 + 2 * i] & 15, quant = notes->quant_slots[i];
        if (p[1 + 2 * i] != notes->ids[i])
            return STATUS_SCANS;
        if (dc >= TABLE_SLOTS || ac >= TABLE_SLOTS)
            return STATUS_BAD_SEGMENT;
        if (!(notes->dc_seen >> dc & 1) || !(notes->ac_seen >> ac & 1) || !(notes->quant_seen >> quant & 1))
            return STATUS_MISSING_TABLE;
        frame->dc[i] = &decoder->dc[dc];
        frame->ac[i] = &decoder->ac[ac];
        frame->quant[i] = &decoder->quant[quant];
    }
    const uint8_t *spectral = p + 1 + 2 * frame->components;
    return spectral[0] == 0 && spectral[1] == 63 && spectral[2] == 0 ? STATUS_OK : STATUS_SCANS;
}

static Status read_segment(Decoder *decoder, Segment segment, Frame *frame, Notes *notes)
{
    switch (segment.marker) {
    case DQT: return read_quant_tables(decoder, segment, notes);
    case DHT: return read_huffman_tables(decoder, segment, notes);
    case SOF0:
    case SOF1: return read_frame(segment, frame, notes);
    case DAC: return STATUS_ARITHMETIC;
    case DRI:
        if (segment.size != 2)
            return STATUS_BAD_SEGMENT;
        frame->restart_interval = read_u16(segment.bytes);
        return STATUS_OK;
    case APP0:
    case APP14: read_application(segment, notes); return STATUS_OK;
    default: break;
    }
    if (segment.marker >= SOF2 && segment.marker <= SOF15)
        return segment.marker >= 0xc9 ? STATUS_ARITHMETIC : STATUS_PROGRESSIVE;
    return STATUS_OK; /* other applications' data, comments */
}

/* Read the header into *frame; the tables go into the decoder, the frame points at them. */
Status header_read(Decoder *decoder, const uint8_t *bytes, size_t size, Frame *frame)
{
    memset(frame, 0, sizeof *frame);
    if (size < 2 || bytes[0] != 0xff || bytes[1] != SOI)
        return STATUS_NOT_JPEG;
    Notes notes = {.adobe_transform = -1};
    size_t position = 2;
    for (;;) {
        Segment segment;
        Status status = next_segment(bytes, size, &position, &segment);
        if (status != STATUS_OK)
            return status;
        if (segment.marker == SOS) {
            frame->header_size = position;
            frame->is_rgb = is_rgb(frame, &notes);
            return read_scan_header(decoder, segment, frame, &notes);
        }
        status = read_segment(decoder, segment, frame, &notes);
        if (status != STATUS_OK)
            return status;
    }
}

/* Copy a header that header_read accepted, without what a decoder does not need (Exif, colour profiles,
 * comments). out has room for header_size bytes. */
Status header_copy(const uint8_t *bytes, size_t header_size, uint8_t *out, size_t *out_size)
{
    size_t position = 2, written = 2;
    memcpy(out, bytes, 2);
    while (position < header_size) {
        size_t start = position;
        Segment segment;
        Status status = next_segment(bytes, header_size, &position, &segment);
        if (status != STATUS_OK)
            return status;
        bool application = segment.marker >= APP0 && segment.marker <= APP15;
        if ((application && segment.marker != APP0 && segment.marker != APP14) || segment.marker == COM)
            continue;
        memcpy(out + written, bytes + start, position - start);
        written += position - start;
    }
    *out_size = written;
    return STATUS_OK;
}
