// Words of a script into bytes, and values into log lines.
#include "probe.h"

// ---- Log lines ----

enum { LINE_CAPACITY = 8192, LONGEST_VALUE = 1000 };

static char line[LINE_CAPACITY];
static u32 line_length;

void put_char(char c) {
  if (line_length < LINE_CAPACITY) line[line_length++] = c;
}

void put_text(const char *text) {
  while (*text != 0) put_char(*text++);
}

void put_span(struct span text) {
  for (u32 i = 0; i < text.len; i++) put_char((char)text.ptr[i]);
}

void put_number(i64 value) {
  char digits[20];
  u32 count = 0;
  u64 rest = value < 0 ? 0 - (u64)value : (u64)value;
  if (value < 0) put_char('-');
  do digits[count++] = (char)('0' + rest % 10);
  while ((rest /= 10) > 0);
  while (count > 0) put_char(digits[--count]);
}

void put_hex(u64 value, u32 digits) {
  while (digits > 0) put_char("0123456789abcdef"[value >> (4 * --digits) & 15]);
}

static void put_printable(struct span value) {
  for (u32 i = 0; i < value.len; i++) {
    u8 c = value.ptr[i];
    if (c >= ' ' && c <= '~') {
      put_char((char)c);
    } else {
      put_text("\\x");
      put_hex(c, 2);
    }
  }
}

// nginx cuts a log line at 2 KiB; the checksum (32-bit FNV-1a) tells values apart that do not fit.
static void put_summary(struct span value) {
  u32 sum = 0x811c9dc5;
  for (u32 i = 0; i < value.len; i++) sum = (sum ^ value.ptr[i]) * 0x01000193;
  put_char('<');
  put_number(value.len);
  put_text(" bytes, fnv1a ");
  put_hex(sum, 8);
  put_char('>');
}

void put_value(struct span value) {
  if (value.len == 0) {
    put_text("''");
  } else if (value.len > LONGEST_VALUE) {
    put_summary(value);
  } else {
    put_printable(value);
  }
}

static u32 read_u32(const u8 *from) {
  return from[0] | (u32)from[1] << 8 | (u32)from[2] << 16 | (u32)from[3] << 24;
}

// Whether keys, values and their NULs fill the map exactly.
static bool map_is_well_formed(struct span map, u32 count) {
  if (count > (map.len - 4) / 8) return false;
  u64 end = 4 + 8 * (u64)count;
  for (u32 i = 0; i < 2 * count; i++) {
    end += (u64)read_u32(map.ptr + 4 + 4 * i) + 1;
    if (end > map.len || map.ptr[end - 1] != 0) return false;
  }
  return end == map.len;
}

void put_map(struct span map) {
  if (map.len == 0) {
    put_text("''");
    return;
  }
  u32 count = map.len < 4 ? 0 : read_u32(map.ptr);
  if (map.len < 4 || !map_is_well_formed(map, count)) {
    put_text("malformed ");
    put_value(map);
    return;
  }
  if (map.len > 2 * LONGEST_VALUE) {
    put_number(count);
    put_text(" pairs ");
    put_summary(map);
    return;
  }
  const u8 *text = map.ptr + 4 + 8 * count;
  for (u32 i = 0; i < 2 * count; i++) {
    u32 length = read_u32(map.ptr + 4 + 4 * i);
    if (i > 0) put_char(i % 2 == 1 ? '=' : '|');
    put_printable((struct span){text, length});
    text += length + 1;
  }
}

void flush_line(i32 level) {
  proxy_log(level, address(line), (i32)line_length);
  line_length = 0;
}

// ---- Words ----

struct buffer {
  u8 *ptr;
  u32 len, capacity;
};

static void append(struct buffer *buffer, u8 byte) {
  if (buffer->len == buffer->capacity) {
    u32 capacity = buffer->capacity == 0 ? 48 : 2 * buffer->capacity;
    u8 *larger = scratch(capacity);
    if (larger == NULL) __builtin_trap();
    __builtin_memcpy(larger, buffer->ptr, buffer->len);
    buffer->ptr = larger;
    buffer->capacity = capacity;
  }
  buffer->ptr[buffer->len++] = byte;
}

static void append_u32(struct buffer *buffer, u32 value) {
  for (u32 i = 0; i < 4; i++) append(buffer, (u8)(value >> 8 * i));
}

static void append_span(struct buffer *buffer, struct span text) {
  for (u32 i = 0; i < text.len; i++) append(buffer, text.ptr[i]);
}

static struct span finish(const struct buffer *buffer) {
  // An empty value still points into the memory.
  static const u8 nothing[1];
  return (struct span){buffer->len == 0 ? nothing : buffer->ptr, buffer->len};
}

bool span_is(struct span text, const char *word) {
  u32 i = 0;
  while (i < text.len && word[i] != 0 && text.ptr[i] == (u8)word[i]) i++;
  return i == text.len && word[i] == 0;
}

static struct span drop(struct span text, u32 count) {
  if (count > text.len) count = text.len;
  return (struct span){text.ptr + count, text.len - count};
}

static u32 hex_digit(u8 c) {
  return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

// Takes the escape that `text` stands behind the backslash of, and appends what it means.
static struct span append_escape(struct buffer *buffer, struct span text) {
  if (text.len == 0) return text;
  u8 c = text.ptr[0];
  if (c == 'x' && text.len >= 3) {
    append(buffer, (u8)(hex_digit(text.ptr[1]) << 4 | hex_digit(text.ptr[2])));
    return drop(text, 3);
  }
  if (c == 'R' && text.len >= 2 && text.ptr[1] == '{') {
    u32 times = 0;
    for (text = drop(text, 2); text.len > 0 && text.ptr[0] != '}'; text = drop(text, 1))
      times = 10 * times + (u32)(text.ptr[0] - '0');
    text = drop(text, 1);
    for (; text.len > 0 && times > 0; times--) append(buffer, text.ptr[0]);
    return drop(text, 1);
  }
  append(buffer, c == '0' ? 0 : c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c);
  return drop(text, 1);
}

// The word up to the first separator that no backslash protects, and what is left behind it. Quotes only group words.
static struct span decode_until(struct span *word, u8 separator_a, u8 separator_b, bool *found) {
  struct buffer buffer = {0};
  struct span text = *word;
  *found = false;
  while (text.len > 0 && !*found) {
    u8 c = text.ptr[0];
    text = drop(text, 1);
    if (c == '\\') {
      text = append_escape(&buffer, text);
    } else if (c != 0 && (c == separator_a || c == separator_b)) {
      *found = true;
    } else if (c != '\'') {
      append(&buffer, c);
    }
  }
  *word = text;
  return finish(&buffer);
}

struct span word_bytes(struct span word) {
  bool found;
  return decode_until(&word, 0, 0, &found);
}

struct span word_path(struct span word) {
  struct buffer path = {0};
  bool more = true;
  while (more) {
    append_span(&path, decode_until(&word, '.', 0, &more));
    if (more) append(&path, 0);
  }
  return finish(&path);
}

// `*N`: N pairs, for maps that are too large.
static struct span many_pairs(u32 count) {
  struct buffer map = {0};
  append_u32(&map, count);
  for (u32 i = 0; i < 2 * count; i++) append_u32(&map, 1);
  for (u32 i = 0; i < count; i++) append_span(&map, (struct span){(const u8 *)"k\0v", 4});
  return finish(&map);
}

struct span word_map(struct span word) {
  struct buffer sizes = {0}, text = {0};
  u32 count = 0;
  i64 many;
  if (word.len > 1 && word.ptr[0] == '*' && parse_number(drop(word, 1), &many)) return many_pairs((u32)many);
  struct span quoted = word;
  if (span_is(quoted, "''")) word.len = 0;
  while (word.len > 0) {
    struct span rest = word;
    bool has_value, more;
    struct span key = decode_until(&word, '=', '|', &has_value);
    // A pair without a value ends in the separator of pairs.
    bool no_value = has_value && word.ptr[-1] == '|';
    struct span value = {key.ptr, 0};
    if (has_value && !no_value) value = decode_until(&word, '|', 0, &more);
    if (rest.len == word.len) break;
    append_u32(&sizes, key.len);
    append_u32(&sizes, value.len);
    append_span(&text, key);
    append(&text, 0);
    append_span(&text, value);
    append(&text, 0);
    count++;
  }
  struct buffer map = {0};
  if (count > 0) {
    append_u32(&map, count);
    append_span(&map, (struct span){sizes.ptr, sizes.len});
    append_span(&map, (struct span){text.ptr, text.len});
  }
  return finish(&map);
}

bool parse_number(struct span word, i64 *value) {
  bool negative = word.len > 1 && word.ptr[0] == '-';
  if (negative) word = drop(word, 1);
  u32 base = 10;
  if (word.len > 2 && word.ptr[0] == '0' && word.ptr[1] == 'x') {
    base = 16;
    word = drop(word, 2);
  }
  u64 sum = 0;
  for (u32 i = 0; i < word.len; i++) {
    u32 digit = hex_digit(word.ptr[i]);
    if (digit >= base) return false;
    sum = sum * base + digit;
  }
  *value = (i64)(negative ? 0 - sum : sum);
  return word.len > 0;
}
