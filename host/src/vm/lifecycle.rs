//! Contexts come and go.

use std::sync::Arc;

use super::Vm;
use super::exports::Exports;
use crate::abi::{Attribute, Callback};
use crate::error::Error;
use crate::guest::ContextId;
use crate::ports::{Hint, RequestId};

impl Vm {
    /// Makes a plugin context: create, vm_start, configure. One that refuses is deleted again.
    pub fn create_root(&mut self, configuration: &Arc<[u8]>) -> Result<ContextId, Error> {
        let id = self.state_mut().contexts.add_root(configuration);
        self.count_contexts();
        let result = self.configure_root(id, configuration.len() as u32);
        if let Err(error) = result {
            // The refusal is what the user must hear of, so a trap in on_delete only ends the VM.
            let _ = self.delete_root(id);
            return Err(error);
        }
        Ok(id)
    }

    fn configure_root(&mut self, id: ContextId, size: u32) -> Result<(), Error> {
        let vm_size = self.state().plugin.vm_config.len() as u32;
        let mut done = None;
        if self.sequences.start_root.is_some() {
            let first = match &self.exports {
                Exports { context_create: Some(_), .. } => Callback::ContextCreate,
                _ => Callback::VmStart,
            };
            let answer = self.call_sequence(first, id, |store, _, sequences| {
                sequences.start_root.as_ref().map_or(Ok(1), |f| f.call(store, (id, vm_size, size)))
            })?;
            let last = self.state().call.callback;
            if answer == 0 {
                return Err(Error::Refused(last));
            }
            done = Some(last);
        }
        if done.is_none() && self.exports.context_create.is_some() {
            self.call(Callback::ContextCreate, id, |store, exports| {
                exports.context_create.as_ref().map_or(Ok(()), |f| f.call(store, (id, 0)))
            })?;
        }
        let is_created = matches!(done, None | Some(Callback::ContextCreate));
        if is_created && self.exports.vm_start.is_some() {
            let started = self.call(Callback::VmStart, id, |store, exports| {
                exports.vm_start.as_ref().map_or(Ok(1), |f| f.call(store, (id, vm_size)))
            })?;
            if started == 0 {
                return Err(Error::Refused(Callback::VmStart));
            }
        }
        if done == Some(Callback::Configure) || self.exports.configure.is_none() {
            return Ok(());
        }
        let configured = self.call(Callback::Configure, id, |store, exports| {
            exports.configure.as_ref().map_or(Ok(1), |f| f.call(store, (id, size)))
        })?;
        if configured == 0 { Err(Error::Refused(Callback::Configure)) } else { Ok(()) }
    }

    /// Ends a plugin context. One whose `proxy_on_done` answers false lives on until `proxy_done`.
    pub fn end_root(&mut self, id: ContextId) -> Result<(), Error> {
        if !self.state().contexts.roots.contains_key(&id) {
            return Ok(());
        }
        let done = self.call_sequence(Callback::Done, id, |store, exports, sequences| {
            let function = sequences.end_root.as_ref().or(exports.done.as_ref());
            function.map_or(Ok(1), |f| f.call(store, id))
        })?;
        if self.state().call.callback == Callback::Delete {
            self.remove_root(id);
            return Ok(());
        }
        let state = self.state_mut();
        let awaits_calls = state.awaits_calls_to_end(id);
        let Some(root) = state.contexts.end_root(id) else { return Ok(()) };
        root.awaits_done = done == 0;
        // What it sends off with its last words is awaited.
        if done != 0 && !awaits_calls {
            return self.delete_root(id);
        }
        Ok(())
    }

    /// Ends a plugin context for good that waited for the answers of calls, when the last has come.
    pub(super) fn end_when_answered(&mut self, id: ContextId) -> Result<(), Error> {
        let state = self.state();
        let waited =
            state.contexts.roots.get(&id).is_some_and(|root| root.ends && !root.awaits_done);
        if waited && !state.awaits_calls_to_end(id) { self.delete_root(id) } else { Ok(()) }
    }

    /// Ends all plugin contexts: begins with those that were not told so far, or deletes them when it `hurries`. Returns how
    /// many are left.
    pub fn end_roots(&mut self, hurries: bool, until: u64) -> Result<usize, Error> {
        let roots = self.state().contexts.roots.values();
        let mut ids: Vec<_> =
            roots.filter(|root| hurries || !root.ends).map(|root| root.id).collect();
        ids.sort_unstable();
        for id in ids {
            if hurries {
                self.delete_root(id)?
            } else {
                self.end_root(id)?
            }
            if self.state().host.monotonic_clock() > until {
                break;
            }
        }
        Ok(self.state().contexts.roots.len())
    }

    /// Whether a plugin context has been told of its end, and has not come to it.
    pub fn awaits_ends(&self) -> bool {
        self.dead.is_none() && self.state().contexts.any_ending()
    }

    /// Once: `proxy_done` may come in the answer of the last call that it waits for.
    fn delete_root(&mut self, id: ContextId) -> Result<(), Error> {
        if !self.state().contexts.roots.contains_key(&id) {
            return Ok(());
        }
        let result = self.delete(id);
        self.remove_root(id);
        result
    }

    fn remove_root(&mut self, id: ContextId) {
        self.drop_calls(id);
        self.state_mut().contexts.remove_root(id);
        self.count_contexts();
    }

    /// Has the metrics show how many contexts there are.
    fn count_contexts(&mut self) {
        let state = self.state_mut();
        state.limits.alive(state.contexts.roots.len(), state.contexts.streams.len());
    }

    /// Has the metrics show how many streams there are.
    #[inline]
    fn count_streams(&mut self) {
        let state = self.state_mut();
        state.limits.streams(state.contexts.streams.len());
    }

    /// Deletes the plugin contexts whose `proxy_done` came.
    #[inline]
    pub fn delete_finished(&mut self) -> Result<(), Error> {
        if self.state().call.finished.is_empty() { Ok(()) } else { self.delete_all_finished() }
    }

    fn delete_all_finished(&mut self) -> Result<(), Error> {
        while let Some(id) = self.state_mut().call.finished.pop() {
            self.delete_root(id)?;
        }
        Ok(())
    }

    /// Makes a stream context.
    pub fn create_stream(
        &mut self,
        root: ContextId,
        request: RequestId,
        calls_hold: bool,
    ) -> Result<ContextId, Error> {
        let id = self.add_stream(root, request, calls_hold);
        self.create_added(id, root)?;
        Ok(id)
    }

    /// Makes a stream context that the guest is told of next, see [`Vm::run_first`].
    #[inline]
    pub fn add_stream(
        &mut self,
        root: ContextId,
        request: RequestId,
        calls_hold: bool,
    ) -> ContextId {
        let id = self.state_mut().contexts.add_stream(root, request, calls_hold);
        self.count_streams();
        id
    }

    /// Tells the guest of a stream that was added.
    pub(super) fn create_added(&mut self, id: ContextId, root: ContextId) -> Result<(), Error> {
        if self.exports.context_create.is_none() {
            return Ok(());
        }
        self.hide_response(id);
        let created = self.call(Callback::ContextCreate, id, |store, exports| {
            exports.context_create.as_ref().map_or(Ok(()), |f| f.call(store, (id, root)))
        });
        match created {
            Ok(()) => self.show_response(id),
            Err(_) => self.remove_stream(id),
        }
        created
    }

    /// Removes a stream. The guest is told of nothing.
    #[inline]
    pub fn remove_stream(&mut self, id: ContextId) {
        self.drop_calls(id);
        self.state_mut().contexts.remove_stream(id);
        self.count_streams();
    }

    /// Ends a stream: done, log, delete. Its `proxy_on_done` is not waited for.
    #[inline]
    pub fn end_stream(&mut self, id: ContextId) -> Result<(), Error> {
        if let Some(stream) = self.state().contexts.streams.get(&id)
            && (stream.respond_now || stream.direct_body.is_some())
        {
            self.warn_of_lost_response(id);
        }
        let Exports { done, log, delete, .. } = &self.exports;
        let is_told = done.is_some() || log.is_some() || delete.is_some();
        let result = if is_told { self.tell_end(id) } else { Ok(()) };
        self.remove_stream(id);
        result
    }

    /// Ends the VM when the guest asked for another one and nothing is under way in this one.
    pub fn end_when_unwanted(&mut self) {
        let state = self.state();
        if state.wants_new_vm && state.contexts.streams.is_empty() && !state.calls.any() {
            self.kill(Error::Lost("the filter asked for a new VM".into()));
        }
    }

    /// The body of a local response that was made in header_filter goes out in body_filter, or else the upstream's
    /// does behind the filter's headers. One that came after the request had gone on needs header_filter, too.
    #[inline(never)]
    fn warn_of_lost_response(&mut self, id: ContextId) {
        let state = self.state_mut();
        let Some(stream) = state.contexts.streams.get(&id) else { return };
        // Answered for after its request had gone on.
        let answers_late = stream.respond_now;
        if answers_late && state.host.headers_sent(stream.request) {
            state.call.callback = Callback::ResponseHeaders;
            state.call.effective = id;
            return state.warn_with("its local response was not sent", Hint::LocalResponse);
        }
        if stream.direct_body.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        let request = stream.request;
        let mut method = Vec::new();
        let is_head = state.host.attribute(request, Attribute::RequestMethod, &mut method)
            && method == b"HEAD";
        if is_head || matches!(state.host.response_status(request), 204 | 304) {
            return;
        }
        state.call.callback = Callback::ResponseHeaders;
        state.call.effective = id;
        state.warn_with("the body of its local response was not sent", Hint::LocalResponseBody);
    }

    #[inline(never)]
    fn tell_end(&mut self, id: ContextId) -> Result<(), Error> {
        if self.dead.is_some() {
            return Ok(());
        }
        let mut told = None;
        if self.sequences.end_stream.is_some() {
            let first = if self.exports.done.is_some() { Callback::Done } else { Callback::Log };
            self.call_sequence(first, id, |store, _, sequences| {
                sequences.end_stream.as_ref().map_or(Ok(()), |f| f.call(store, id))
            })?;
            told = Some(self.state().call.callback);
        }
        if told.is_none() && self.exports.done.is_some() {
            self.call(Callback::Done, id, |store, exports| {
                exports.done.as_ref().map_or(Ok(1), |f| f.call(store, id))
            })?;
        }
        if matches!(told, None | Some(Callback::Done)) && self.exports.log.is_some() {
            self.call(Callback::Log, id, |store, exports| {
                exports.log.as_ref().map_or(Ok(()), |f| f.call(store, id))
            })?;
        }
        if told == Some(Callback::Delete) {
            return Ok(());
        }
        self.delete(id)
    }

    #[inline]
    fn delete(&mut self, id: ContextId) -> Result<(), Error> {
        if self.exports.delete.is_none() || self.dead.is_some() {
            return Ok(());
        }
        self.tell_of_deletion(id)
    }

    #[inline(never)]
    fn tell_of_deletion(&mut self, id: ContextId) -> Result<(), Error> {
        self.call(Callback::Delete, id, |store, exports| {
            exports.delete.as_ref().map_or(Ok(()), |f| f.call(store, id))
        })
    }
}
