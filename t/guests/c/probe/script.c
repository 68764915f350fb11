// Runs the lines of a script that are for one callback.
#include "probe.h"

static bool is_for(const struct line *line, const struct frame *frame) {
  struct span names = line->callbacks;
  bool named = false;
  while (names.len > 0 && !named) {
    struct span name = take_until(&names, ',');
    named = span_is(name, "*") || span_is(name, frame->callback);
  }
  if (!named) return false;
  if (span_is(line->condition, "eos")) return frame_argument(frame, "eos") != 0;
  if (span_is(line->condition, "more")) return frame_argument(frame, "eos") == 0;
  if (span_is(line->condition, "first")) return frame->first;
  if (span_is(line->condition, "again")) return !frame->first;
  return true;
}

void run_script(struct span script, struct frame *frame) {
  struct line line;
  while (next_line(&script, &line)) {
    if (line.count == 0 || !is_for(&line, frame)) continue;
    if (!run_control_op(frame, &line, false)) run_host_op(frame, &line, false);
  }
}

static bool is_condition(struct span word) {
  return word.len == 0 || span_is(word, "eos") || span_is(word, "more") || span_is(word, "first") ||
         span_is(word, "again");
}

static bool check_line(const struct line *line) {
  if (line->count == 0 || !is_condition(line->condition)) return false;
  struct span names = line->callbacks;
  while (names.len > 0) {
    if (!callback_exists(take_until(&names, ','))) return false;
  }
  return run_control_op(NULL, line, true) || run_host_op(NULL, line, true);
}

bool check_script(struct span script) {
  struct line line;
  for (struct span start = script; next_line(&script, &line); start = script) {
    if (check_line(&line)) continue;
    put_text("probe: bad line: ");
    put_value((struct span){start.ptr, start.len - script.len});
    flush_line(LOG_ERROR);
    return false;
  }
  return true;
}
