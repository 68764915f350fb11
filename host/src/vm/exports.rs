//! What a guest exports, looked up once.

use wasmtime::{FuncType, Instance, Store, TypedFunc, WasmParams, WasmResults};

use super::analysis::profile::Profile;
use crate::abi::{ALLOCATORS, Callback};
use crate::error::{Error, printable};
use crate::guest::State;

/// Header callbacks have two parameters in ABI 0.1.0 and three since.
pub(super) enum OnHeaders {
    Two(TypedFunc<(u32, u32), u32>),
    Three(TypedFunc<(u32, u32, u32), u32>),
}

/// Plugin context, token, headers, bytes of the body, trailers.
type OnHttpCallResponse = TypedFunc<(u32, u32, u32, u32, u32), ()>;

/// Plugin context, token, status, bytes of the answer.
type OnRedisCallResponse = TypedFunc<(u32, u32, u32, u32), ()>;

/// Plugin context, id of the call, bytes of the result.
type OnForeignFunction = TypedFunc<(u32, u32, u32), ()>;

/// Plugin context, id of the call or stream, and a number: of headers, of bytes, or the status.
type OnGrpc = Option<TypedFunc<(u32, u32, u32), ()>>;

/// The callbacks that a guest has, and which do something.
pub(super) struct Exports {
    pub context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub configure: Option<TypedFunc<(u32, u32), u32>>,
    pub request_headers: Option<OnHeaders>,
    pub request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub response_headers: Option<OnHeaders>,
    pub response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub response_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub tick: Option<TypedFunc<u32, ()>>,
    pub queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    pub http_call_response: Option<OnHttpCallResponse>,
    pub grpc_initial_metadata: OnGrpc,
    pub grpc_receive: OnGrpc,
    pub grpc_trailing_metadata: OnGrpc,
    pub grpc_close: OnGrpc,
    pub redis_call_response: Option<OnRedisCallResponse>,
    pub foreign_function: Option<OnForeignFunction>,
    pub done: Option<TypedFunc<u32, u32>>,
    pub log: Option<TypedFunc<u32, ()>>,
    pub delete: Option<TypedFunc<u32, ()>>,
}

impl Exports {
    /// Looks every callback up, but for those that do nothing; one of the wrong type is an error that names both types.
    pub(super) fn find(
        instance: &Instance,
        store: &mut Store<State>,
        profile: &Profile,
    ) -> Result<Self, Error> {
        let mut found = Self::find_all(instance, store)?;
        found.forget_idle(profile);
        Ok(found)
    }

    fn forget_idle(&mut self, profile: &Profile) {
        fn forget<T>(callback: &mut Option<T>, is_idle: bool) {
            if is_idle {
                *callback = None;
            }
        }
        forget(&mut self.context_create, profile.is_idle(Callback::ContextCreate));
        forget(&mut self.vm_start, profile.is_idle(Callback::VmStart));
        forget(&mut self.configure, profile.is_idle(Callback::Configure));
        forget(&mut self.done, profile.is_idle(Callback::Done));
        forget(&mut self.log, profile.is_idle(Callback::Log));
        forget(&mut self.delete, profile.is_idle(Callback::Delete));
    }

    fn find_all(instance: &Instance, store: &mut Store<State>) -> Result<Self, Error> {
        Ok(Self {
            context_create: typed(instance, store, Callback::ContextCreate.name())?,
            vm_start: typed(instance, store, Callback::VmStart.name())?,
            configure: typed(instance, store, Callback::Configure.name())?,
            request_headers: on_headers(instance, store, Callback::RequestHeaders.name())?,
            request_body: typed(instance, store, Callback::RequestBody.name())?,
            response_headers: on_headers(instance, store, Callback::ResponseHeaders.name())?,
            response_body: typed(instance, store, Callback::ResponseBody.name())?,
            response_trailers: typed(instance, store, Callback::ResponseTrailers.name())?,
            tick: typed(instance, store, Callback::Tick.name())?,
            queue_ready: typed(instance, store, Callback::QueueReady.name())?,
            http_call_response: typed(instance, store, Callback::HttpCallResponse.name())?,
            grpc_initial_metadata: typed(instance, store, Callback::GrpcInitialMetadata.name())?,
            grpc_receive: typed(instance, store, Callback::GrpcReceive.name())?,
            grpc_trailing_metadata: typed(instance, store, Callback::GrpcTrailingMetadata.name())?,
            grpc_close: typed(instance, store, Callback::GrpcClose.name())?,
            redis_call_response: typed(instance, store, Callback::RedisCallResponse.name())?,
            foreign_function: typed(instance, store, Callback::ForeignFunction.name())?,
            done: typed(instance, store, Callback::Done.name())?,
            log: typed(instance, store, Callback::Log.name())?,
            delete: typed(instance, store, Callback::Delete.name())?,
        })
    }

    /// The callback of that event of gRPC.
    pub(super) fn grpc(&self, callback: Callback) -> Option<&TypedFunc<(u32, u32, u32), ()>> {
        match callback {
            Callback::GrpcInitialMetadata => self.grpc_initial_metadata.as_ref(),
            Callback::GrpcReceive => self.grpc_receive.as_ref(),
            Callback::GrpcTrailingMetadata => self.grpc_trailing_metadata.as_ref(),
            _ => self.grpc_close.as_ref(),
        }
    }
}

/// The allocator, by its new name or its old one.
pub(super) fn allocator(
    instance: &Instance,
    store: &mut Store<State>,
) -> Result<Option<TypedFunc<u32, u32>>, Error> {
    for name in ALLOCATORS {
        if let Some(found) = typed(instance, store, name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// An exported function of the given type, `None` when there is no such export.
pub(super) fn typed<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<State>,
    name: &str,
) -> Result<Option<TypedFunc<P, R>>, Error> {
    let Some(export) = instance.get_export(&mut *store, name) else { return Ok(None) };
    let Some(function) = export.into_func() else {
        return Err(Error::Export(format!("export \"{name}\" is not a function")));
    };
    match function.typed(&*store) {
        Ok(typed) => Ok(Some(typed)),
        Err(_) => Err(Error::Export(format!(
            "export \"{name}\" has type {}, which is not the type that the Proxy-Wasm ABI gives it",
            printable(&signature(&function.ty(&*store)))
        ))),
    }
}

/// A function's type for users: `(i32, i32) -> (i32)`.
pub(super) fn signature(ty: &FuncType) -> String {
    let list = |types: Vec<String>| types.join(", ");
    let params = list(ty.params().map(|t| t.to_string()).collect());
    let results = list(ty.results().map(|t| t.to_string()).collect());
    format!("({params}) -> ({results})")
}

fn on_headers(
    instance: &Instance,
    store: &mut Store<State>,
    name: &str,
) -> Result<Option<OnHeaders>, Error> {
    if let Ok(found) = typed(instance, store, name) {
        return Ok(found.map(OnHeaders::Three));
    }
    Ok(typed(instance, store, name)?.map(OnHeaders::Two))
}
