// Takes a script apart, and begins the log lines of its ops.
#include "probe.h"

static struct span skip(struct span text, u32 count) {
  return (struct span){text.ptr + count, text.len - count};
}

static bool is_blank(u8 c) {
  return c == ' ' || c == '\t' || c == '\r';
}

static bool ends_line(u8 c) {
  return c == '\n' || c == ';';
}

static struct span skip_blanks(struct span text) {
  while (text.len > 0 && is_blank(text.ptr[0])) text = skip(text, 1);
  return text;
}

// Also over comments, which go from # to the end of the text line.
static struct span skip_to_line(struct span text) {
  while (text.len > 0) {
    if (text.ptr[0] == '#') {
      while (text.len > 0 && text.ptr[0] != '\n') text = skip(text, 1);
    } else if (is_blank(text.ptr[0]) || ends_line(text.ptr[0])) {
      text = skip(text, 1);
    } else {
      break;
    }
  }
  return text;
}

// A word ends at a blank or at the end of the line, unless quotes or a backslash protect that.
static u32 word_length(struct span text) {
  bool quoted = false;
  u32 i = 0;
  for (; i < text.len; i++) {
    u8 c = text.ptr[i];
    if (c == '\\') {
      i++;
    } else if (c == '\'') {
      quoted = !quoted;
    } else if (!quoted && (is_blank(c) || ends_line(c))) {
      break;
    }
  }
  return i < text.len ? i : text.len;
}

struct span take_until(struct span *text, char end) {
  u32 i = 0;
  while (i < text->len && text->ptr[i] != (u8)end) i++;
  struct span taken = {text->ptr, i};
  *text = skip(*text, i < text->len ? i + 1 : i);
  return taken;
}

static void split_head(struct span head, struct line *line) {
  line->callbacks = take_until(&head, '@');
  line->condition = head;
}

bool next_line(struct span *script, struct line *line) {
  struct span text = skip_to_line(*script);
  *line = (struct line){0};
  if (text.len == 0) return false;

  struct span head = {text.ptr, word_length(text)};
  text = skip(text, head.len);
  bool has_head = head.len > 1 && head.ptr[head.len - 1] == ':';
  if (has_head) {
    head.len--;
    split_head(head, line);
  }

  const u8 *arguments = NULL;
  for (text = skip_blanks(text); text.len > 0 && !ends_line(text.ptr[0]); text = skip_blanks(text)) {
    u32 length = word_length(text);
    if (line->count == 1) arguments = text.ptr;
    if (line->count < MAX_WORDS) line->words[line->count++] = (struct span){text.ptr, length};
    text = skip(text, length);
  }
  if (arguments != NULL) {
    struct span last = line->words[line->count - 1];
    line->arguments = (struct span){arguments, (u32)(last.ptr + last.len - arguments)};
  }
  if (!has_head) line->count = 0;
  *script = text;
  return true;
}

struct span word_at(const struct line *line, u32 index) {
  static const u8 nothing[1];
  return index < line->count ? line->words[index] : (struct span){nothing, 0};
}

void begin_line(const struct frame *frame, const struct line *line) {
  enum { LONGEST = 600 };
  put_text(frame->callback);
  put_char(' ');
  put_span(word_at(line, 0));
  if (line->count > 1) {
    struct span shown = line->arguments;
    bool cut = shown.len > LONGEST;
    if (cut) shown.len = LONGEST;
    put_char(' ');
    put_span(shown);
    if (cut) put_text("...");
  }
  put_text(" -> ");
}
