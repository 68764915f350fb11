// Makes the callbacks of the ABI exports of this module.
export * from "@solo-io/proxy-runtime/proxy";

import {
  Context,
  FilterHeadersStatusValues,
  RootContext,
  registerRootContext,
  stream_context,
} from "@solo-io/proxy-runtime";
import { BufferTypeValues, get_buffer_bytes } from "@solo-io/proxy-runtime/runtime";

class AddHeaderRoot extends RootContext {
  value: string = "world!";

  // In place of the SDK's own: that one gives the host the size where the address for the size belongs, so it cannot
  // read an empty configuration, and a long one overwrites a word of the filter's data.
  onConfigure(configuration_size: u32): bool {
    if (configuration_size > 0) {
      const text = get_buffer_bytes(BufferTypeValues.PluginConfiguration, 0, configuration_size);
      this.value = String.UTF8.decode(text);
    }
    return true;
  }

  createContext(context_id: u32): Context {
    return new AddHeader(context_id, this);
  }
}

class AddHeader extends Context {
  private value: string;

  constructor(context_id: u32, root: AddHeaderRoot) {
    super(context_id, root);
    this.value = root.value;
  }

  onResponseHeaders(num_headers: u32, end_of_stream: bool): FilterHeadersStatusValues {
    stream_context.headers.response.add("hello", this.value);
    return FilterHeadersStatusValues.Continue;
  }
}

// The host must load the module under this name (or with it as root_id).
registerRootContext((context_id: u32) => new AddHeaderRoot(context_id), "add_header");
