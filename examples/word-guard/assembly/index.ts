// Makes the callbacks of the ABI exports of this module.
export * from "@solo-io/proxy-runtime/proxy";

import {
  Context,
  FilterDataStatusValues,
  FilterHeadersStatusValues,
  GrpcStatusValues,
  RootContext,
  registerRootContext,
  send_local_response,
  stream_context,
} from "@solo-io/proxy-runtime";
import { BufferTypeValues, get_buffer_bytes } from "@solo-io/proxy-runtime/runtime";

// The SDK has no name for this function of the host.
// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function set_buffer_bytes(
  buffer: BufferTypeValues,
  start: u32,
  size: u32,
  data: usize,
  data_size: usize
): u32;

class WordGuardRoot extends RootContext {
  word: string = "secret";

  onConfigure(configuration_size: u32): bool {
    if (configuration_size > 0) {
      const text = get_buffer_bytes(BufferTypeValues.PluginConfiguration, 0, configuration_size);
      this.word = String.UTF8.decode(text);
    }
    return true;
  }

  createContext(context_id: u32): Context {
    return new WordGuard(context_id, this);
  }
}

class WordGuard extends Context {
  private word: string;

  constructor(context_id: u32, root: WordGuardRoot) {
    super(context_id, root);
    this.word = root.word;
  }

  // The request goes on, or is refused, when its body was seen.
  onRequestHeaders(num_headers: u32, end_of_stream: bool): FilterHeadersStatusValues {
    return end_of_stream
      ? FilterHeadersStatusValues.Continue
      : FilterHeadersStatusValues.StopIteration;
  }

  onRequestBody(body_size: usize, end_of_stream: bool): FilterDataStatusValues {
    if (!end_of_stream) {
      // More, until the body is whole.
      return FilterDataStatusValues.StopIterationAndBuffer;
    }
    const body = get_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, <u32>body_size);
    if (String.UTF8.decode(body).includes(this.word)) {
      send_local_response(
        403,
        "word guard",
        String.UTF8.encode("not with that word\n"),
        [],
        GrpcStatusValues.PermissionDenied
      );
      return FilterDataStatusValues.StopIterationNoBuffer;
    }
    stream_context.headers.request.add("x-word-guard", "passed");
    return FilterDataStatusValues.Continue;
  }

  // The length of the response is not known before its body was rewritten.
  onResponseHeaders(num_headers: u32, end_of_stream: bool): FilterHeadersStatusValues {
    stream_context.headers.response.remove("content-length");
    return FilterHeadersStatusValues.Continue;
  }

  onResponseBody(body_size: usize, end_of_stream: bool): FilterDataStatusValues {
    if (!end_of_stream) {
      return FilterDataStatusValues.StopIterationAndBuffer;
    }
    if (body_size > 0) {
      const bytes = get_buffer_bytes(BufferTypeValues.HttpResponseBody, 0, <u32>body_size);
      const body = String.UTF8.decode(bytes);
      const masked = body.replaceAll(this.word, "*".repeat(this.word.length));
      const data = String.UTF8.encode(masked);
      set_buffer_bytes(
        BufferTypeValues.HttpResponseBody,
        0,
        <u32>body_size,
        changetype<usize>(data),
        data.byteLength
      );
    }
    return FilterDataStatusValues.Continue;
  }
}

// The host must load the module under this name (or with it as root_id).
registerRootContext((context_id: u32) => new WordGuardRoot(context_id), "word_guard");
