//! The contexts of a VM by their ids.

use std::sync::Arc;

use super::{ContextId, Listener, Properties, Root, Stream};
use crate::id_map::IdMap;
use crate::limits;
use crate::ports::RequestId;
use crate::store::QueueId;

/// Roots and streams by id.
#[derive(Debug, Default)]
pub struct Contexts {
    /// Plugin contexts.
    pub roots: IdMap<ContextId, Box<Root>>,
    /// Stream contexts.
    pub streams: IdMap<ContextId, Box<Stream>>,
    /// Ended streams whose buffers serve again.
    #[allow(
        clippy::vec_box,
        reason = "streams move in and out as they are; unboxed they would be copied"
    )]
    spare: Vec<Box<Stream>>,
    /// Ended plugin contexts whose memory serves again.
    #[allow(clippy::vec_box, reason = "as above")]
    spare_roots: Vec<Box<Root>>,
    last_id: ContextId,
    /// Ids begin again, so one may be that of a context that lives.
    has_wrapped: bool,
    /// Some stream has loaded its request's headers.
    pub loads_request_headers: bool,
    /// Plugin contexts that were told of their end.
    ending: usize,
    /// Bodies held for all streams, see [`limits::HELD_BODIES`].
    pub held: usize,
    /// Properties of all contexts, see [`limits::ALL_PROPERTY_BYTES`].
    property_bytes: usize,
}

/// Ended streams kept for reuse; more would only be memory held for a burst that is over.
const SPARE: usize = 64;

/// Ended plugin contexts kept for reuse: where one is made in each request, a collector has them end by the thousand.
pub const SPARE_ROOTS: usize = 4096;

impl Contexts {
    /// The next id: never one that lives, never 0, and used again only past `i32::MAX`.
    #[inline]
    pub fn next_id(&mut self) -> ContextId {
        if self.has_wrapped || self.last_id >= i32::MAX as u32 {
            return self.free_id();
        }
        self.last_id += 1;
        self.last_id
    }

    #[cold]
    fn free_id(&mut self) -> ContextId {
        self.has_wrapped = true;
        loop {
            self.last_id = if self.last_id >= i32::MAX as u32 { 1 } else { self.last_id + 1 };
            if !self.roots.contains_key(&self.last_id) && !self.streams.contains_key(&self.last_id)
            {
                return self.last_id;
            }
        }
    }

    /// Adds a plugin context and returns its id.
    pub fn add_root(&mut self, configuration: &Arc<[u8]>) -> ContextId {
        let id = self.next_id();
        let new = Root::new(id, configuration.clone());
        let root = match self.spare_roots.pop() {
            Some(mut root) => {
                *root = new;
                root
            }
            None => Box::new(new),
        };
        self.roots.insert(id, root);
        id
    }

    /// Adds a stream and returns its id.
    #[inline]
    pub fn add_stream(
        &mut self,
        root: ContextId,
        request: RequestId,
        calls_hold: bool,
    ) -> ContextId {
        let id = self.next_id();
        let mut stream = match self.spare.pop() {
            Some(mut stream) => {
                stream.renew(id, root, request);
                stream
            }
            None => Box::new(Stream::new(id, root, request)),
        };
        stream.calls_hold = calls_hold;
        self.streams.insert(id, stream);
        if let Some(root) = self.roots.get_mut(&root) {
            root.streams += 1;
        }
        id
    }

    /// Removes a stream.
    #[inline]
    pub fn remove_stream(&mut self, id: ContextId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if let Some(root) = self.roots.get_mut(&stream.root) {
            root.streams -= 1;
        }
        self.held -= stream.held;
        self.property_bytes -= stream.properties.size();
        if self.spare.len() < SPARE {
            self.spare.push(stream);
        }
    }

    /// A plugin context is told of its end.
    pub fn end_root(&mut self, id: ContextId) -> Option<&mut Root> {
        let root = self.roots.get_mut(&id)?;
        self.ending += usize::from(!std::mem::replace(&mut root.ends, true));
        Some(root)
    }

    /// Whether a plugin context was told of its end and has not come to it.
    pub fn any_ending(&self) -> bool {
        self.ending > 0
    }

    /// Removes a plugin context.
    pub fn remove_root(&mut self, id: ContextId) {
        if let Some(root) = self.roots.remove(&id) {
            self.ending -= usize::from(root.ends);
            self.property_bytes -= root.properties.size();
            let is_small = root.configuration.len() <= 4096 && root.properties.size() == 0;
            if self.spare_roots.len() < SPARE_ROOTS && is_small {
                self.spare_roots.push(root);
            }
        }
    }

    /// Brings the account of held bodies up to date after an event of a stream.
    pub fn count_held(&mut self, id: ContextId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let now = stream.held_size();
            self.held = self.held - stream.held + now;
            stream.held = now;
        }
    }

    /// Bytes that may be held for a stream on top of what is held for the others.
    pub fn hold_room(&self, stream: &Stream) -> usize {
        limits::HELD_BODIES.saturating_sub(self.held - stream.held)
    }

    /// Keeps a property of a context; `None` when there is no such context, false when there is no room.
    pub fn keep_property(&mut self, id: ContextId, path: &[u8], value: &[u8]) -> Option<bool> {
        let properties = match self.streams.get_mut(&id) {
            Some(stream) => &mut stream.properties,
            None => &mut self.roots.get_mut(&id)?.properties,
        };
        let before = properties.size();
        let most = self.property_bytes + Properties::size_of_one(path, value);
        let kept = most <= limits::ALL_PROPERTY_BYTES && properties.set(path, value);
        self.property_bytes = self.property_bytes - before + properties.size();
        Some(kept)
    }

    /// The root of a context registers a queue; of this VM's roots it alone listens to it from now on.
    pub fn listen(&mut self, id: ContextId, queue: QueueId) {
        for root in self.roots.values_mut() {
            root.queues.retain(|listener| listener.id != queue);
        }
        if let Some(root) = self.root_of_mut(id) {
            root.queues.push(Listener { id: queue, ticket: None });
        }
    }

    /// The root of a context: itself, or the parent of a stream.
    pub fn root_of(&self, id: ContextId) -> Option<&Root> {
        match self.streams.get(&id) {
            Some(stream) => self.roots.get(&stream.root),
            None => self.roots.get(&id),
        }
        .map(|root| &**root)
    }

    /// See [`Contexts::root_of`].
    pub fn root_of_mut(&mut self, id: ContextId) -> Option<&mut Root> {
        match self.streams.get(&id) {
            Some(stream) => self.roots.get_mut(&stream.root),
            None => self.roots.get_mut(&id),
        }
        .map(|root| &mut **root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    #[test]
    fn ids_wrap_past_i32_and_skip_what_lives() {
        let mut contexts = Contexts::default();
        let root = contexts.add_root(&(Arc::new([]) as Arc<[u8]>));
        let request = RequestId(NonZeroUsize::MIN);
        let two = contexts.add_stream(root, request, false);
        let three = contexts.add_stream(root, request, false);
        assert_eq!((root, two, three), (1, 2, 3));
        contexts.remove_stream(two);
        assert_eq!(contexts.add_stream(root, request, false), 4, "not used again");

        contexts.last_id = i32::MAX as u32 - 1;
        assert_eq!(contexts.add_stream(root, request, false), i32::MAX as u32);
        assert_eq!(contexts.add_stream(root, request, false), 2, "0 is none, 1 lives");
        assert_eq!(contexts.add_stream(root, request, false), 5, "3 and 4 live");
        assert_eq!(contexts.roots.get(&root).map(|root| root.streams), Some(5));
    }
}
