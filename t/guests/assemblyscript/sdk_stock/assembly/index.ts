// As people write it, with nothing of the SDK replaced: its own onConfigure gives the host the size of the
// configuration where the address for the size belongs.
export * from "@solo-io/proxy-runtime/proxy";

import {
  Context,
  FilterHeadersStatusValues,
  RootContext,
  registerRootContext,
  stream_context,
} from "@solo-io/proxy-runtime";

class StockRoot extends RootContext {
  createContext(context_id: u32): Context {
    return new Stock(context_id, this);
  }
}

class Stock extends Context {
  onResponseHeaders(num_headers: u32, end_of_stream: bool): FilterHeadersStatusValues {
    stream_context.headers.response.add("hello", this.root_context.getConfiguration());
    return FilterHeadersStatusValues.Continue;
  }
}

registerRootContext((context_id: u32) => new StockRoot(context_id), "stock");
