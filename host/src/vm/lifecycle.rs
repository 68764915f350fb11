//! Contexts come and go.

use super::Vm;
use crate::abi::{Attribute, Callback};
use crate::error::Error;
use crate::guest::{ContextId, Root};
use crate::ports::{Hint, RequestId};

impl Vm {
    /// Makes a plugin context: create, vm_start, configure. One that refuses is deleted again.
    pub fn create_root(&mut self, configuration: &[u8]) -> Result<ContextId, Error> {
        let contexts = &mut self.state_mut().contexts;
        let id = contexts.next_id();
        contexts.roots.insert(id, Root::new(id, configuration));
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
        self.call(Callback::ContextCreate, id, |store, exports| match &exports.context_create {
            Some(f) => f.call(store, (id, 0)),
            None => Ok(()),
        })?;
        let started =
            self.call(Callback::VmStart, id, |store, exports| match &exports.vm_start {
                Some(f) => f.call(store, (id, vm_size)),
                None => Ok(1),
            })?;
        if started == 0 {
            return Err(Error::Refused(Callback::VmStart));
        }
        let configured =
            self.call(Callback::Configure, id, |store, exports| match &exports.configure {
                Some(f) => f.call(store, (id, size)),
                None => Ok(1),
            })?;
        if configured == 0 { Err(Error::Refused(Callback::Configure)) } else { Ok(()) }
    }

    /// Ends a plugin context. One whose `proxy_on_done` answers false lives on until `proxy_done`.
    pub fn end_root(&mut self, id: ContextId) -> Result<(), Error> {
        if !self.state().contexts.roots.contains_key(&id) {
            return Ok(());
        }
        let done = self.call(Callback::Done, id, |store, exports| match &exports.done {
            Some(f) => f.call(store, id),
            None => Ok(1),
        })?;
        let state = self.state_mut();
        let awaits_calls = state.awaits_calls_to_end(id);
        let Some(root) = state.contexts.roots.get_mut(&id) else { return Ok(()) };
        root.ends = true;
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
        self.dead.is_none() && self.state().contexts.roots.values().any(|root| root.ends)
    }

    /// Once: `proxy_done` may come in the answer of the last call that it waits for.
    fn delete_root(&mut self, id: ContextId) -> Result<(), Error> {
        if !self.state().contexts.roots.contains_key(&id) {
            return Ok(());
        }
        let result = self.delete(id);
        self.drop_calls(id);
        self.state_mut().contexts.remove_root(id);
        self.count_contexts();
        result
    }

    /// Has the metrics show how many contexts there are.
    fn count_contexts(&mut self) {
        let state = self.state_mut();
        state.limits.alive(state.contexts.roots.len(), state.contexts.streams.len());
    }

    /// Deletes the plugin contexts whose `proxy_done` came.
    pub fn delete_finished(&mut self) -> Result<(), Error> {
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
        let contexts = &mut self.state_mut().contexts;
        let id = contexts.add_stream(root, request);
        if calls_hold && let Some(stream) = contexts.streams.get_mut(&id) {
            stream.calls_hold = true;
        }
        self.count_contexts();
        if self.exports.context_create.is_some() {
            let created = self.call(Callback::ContextCreate, id, |store, exports| {
                exports.context_create.as_ref().map_or(Ok(()), |f| f.call(store, (id, root)))
            });
            if let Err(error) = created {
                self.drop_calls(id);
                self.state_mut().contexts.remove_stream(id);
                self.count_contexts();
                return Err(error);
            }
        }
        Ok(id)
    }

    /// Ends a stream: done, log, delete. Its `proxy_on_done` is not waited for.
    pub fn end_stream(&mut self, id: ContextId) -> Result<(), Error> {
        self.warn_of_lost_response(id);
        let result = self.tell_end(id);
        self.drop_calls(id);
        self.state_mut().contexts.remove_stream(id);
        self.count_contexts();
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
    fn warn_of_lost_response(&mut self, id: ContextId) {
        let answers_late = self.answers_late(id);
        let state = self.state_mut();
        let Some(stream) = state.contexts.streams.get(&id) else { return };
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

    fn tell_end(&mut self, id: ContextId) -> Result<(), Error> {
        if self.dead.is_some() {
            return Ok(());
        }
        if self.exports.done.is_some() {
            self.call(Callback::Done, id, |store, exports| {
                exports.done.as_ref().map_or(Ok(1), |f| f.call(store, id))
            })?;
        }
        if self.exports.log.is_some() {
            self.call(Callback::Log, id, |store, exports| {
                exports.log.as_ref().map_or(Ok(()), |f| f.call(store, id))
            })?;
        }
        self.delete(id)
    }

    fn delete(&mut self, id: ContextId) -> Result<(), Error> {
        if self.exports.delete.is_none() || self.dead.is_some() {
            return Ok(());
        }
        self.call(Callback::Delete, id, |store, exports| {
            exports.delete.as_ref().map_or(Ok(()), |f| f.call(store, id))
        })
    }
}
