//! A look at all of it, for tests.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::layout::{Kind, PAGE};
use super::lock::Locked;

impl Shared {
    /// Whether everything is as it should be; the error says what is not.
    pub fn verify(&self) -> Result<(), String> {
        let locked = self.lock().map_err(|refusal| format!("{refusal:?}"))?;
        let (mut nodes, mut entries) = (Vec::new(), HashSet::new());
        locked.for_each(|link, node| {
            nodes.push((link, node.size()));
            if node.is(Kind::Entry) {
                entries.insert(link);
            }
        });
        locked.for_each_message(|link, node| nodes.push((link, node.size())));
        locked.verify_uses(&entries)?;
        locked.verify_queues()?;
        locked.change(|| locked.free_spare());
        let used = locked.used();
        locked.change(|| {
            locked.forget_heap();
            let lost = nodes.iter().find(|(link, size)| !locked.claim(*link, *size));
            locked.list_pages_with_room();
            match lost {
                Some((link, size)) => {
                    Err(format!("{link:#x}, {size} bytes, has no room of its own"))
                }
                None if used != locked.used() => Err(format!(
                    "{used} bytes are taken in {} pages, and nodes have {}",
                    used / PAGE,
                    locked.used()
                )),
                None => Ok(()),
            }
        })
    }
}

impl Locked<'_> {
    fn verify_uses(&self, entries: &HashSet<u32>) -> Result<(), String> {
        let mut seen = HashSet::new();
        let mut link = self.header().newest.load(Relaxed);
        let mut newer = 0;
        while let Some(node) = self.node(link) {
            if !entries.contains(&link) || !seen.insert(link) || node.newer.load(Relaxed) != newer {
                return Err(format!("{link:#x} is in the list of uses and should not be there"));
            }
            newer = link;
            link = node.older.load(Relaxed);
        }
        let wanted = if self.evicts() { entries.len() } else { 0 };
        if seen.len() == wanted && newer == self.header().oldest.load(Relaxed) {
            Ok(())
        } else {
            Err(format!("{} entries are in the list of uses, and there are {wanted}", seen.len()))
        }
    }
}
