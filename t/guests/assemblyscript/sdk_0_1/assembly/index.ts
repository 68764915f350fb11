// What examples/add-header does, with the SDK that speaks ABI 0.1.0. That SDK predates virtual methods in the language,
// hence the helpers that wrap each context.
export * from "@solo-io/proxy-runtime/proxy";

import {
  Context,
  ContextHelper,
  FilterHeadersStatusValues,
  RootContext,
  RootContextHelper,
  registerRootContext,
  stream_context,
} from "@solo-io/proxy-runtime";

class AddHeaderRoot extends RootContext {
  value: string = "world!";

  onConfigure(): bool {
    const configuration = String.UTF8.decode(this.getConfiguration());
    if (configuration.length > 0) this.value = configuration;
    return true;
  }

  createContext(): Context {
    return ContextHelper.wrap(new AddHeader(this));
  }
}

class AddHeader extends Context {
  root: AddHeaderRoot;

  constructor(root: AddHeaderRoot) {
    super();
    this.root = root;
  }

  onResponseHeaders(num_headers: u32): FilterHeadersStatusValues {
    stream_context.headers.response.add("hello", this.root.value);
    return FilterHeadersStatusValues.Continue;
  }
}

registerRootContext(() => RootContextHelper.wrap(new AddHeaderRoot()), "add_header");
