//! The place of a plugin's VM, which is empty from the end of one VM to the start of the next.

use super::Vm;
use super::backoff::Backoff;
use crate::error::Error;

/// See the module.
#[derive(Default)]
pub(super) struct Slot {
    /// The VM, while one lives.
    pub vm: Option<Vm>,
    /// The process that made the VM.
    pub process: u64,
    /// Counts the VMs that this plugin has had: contexts of another number are gone.
    pub serial: u64,
    /// Why the last VM that ended did.
    pub cause: String,
    /// Failed starts since the last VM that started.
    pub backoff: Backoff,
}

impl Slot {
    /// What a stream of a VM is told that has ended.
    pub(super) fn lost(&self) -> Error {
        Error::Lost(self.cause.clone())
    }

    /// Takes a VM out that has ended, with its memory above all.
    pub(super) fn take_dead(&mut self) -> Option<Vm> {
        self.cause = match self.vm.as_ref()?.dead()? {
            Error::Lost(cause) => cause.clone(),
            error => error.to_string(),
        };
        self.vm.take()
    }

    /// Makes room for a VM of that process. Returns the one of another process that was there.
    pub(super) fn renew(&mut self, process: u64) -> Option<Vm> {
        let before = self.vm.take();
        if before.is_some() {
            self.cause = "it belonged to another process".into();
        }
        self.process = process;
        self.serial += 1;
        before
    }

    /// Works on the VM. The caller's error may be smaller than ours, so that what does not fail moves less.
    #[inline]
    pub(super) fn enter<R, E: From<Error>>(
        &mut self,
        f: impl FnOnce(&mut Vm, u64) -> Result<R, E>,
    ) -> Result<R, E> {
        let Some(vm) = self.vm.as_mut() else { return Err(self.lost().into()) };
        let guard = KillOnPanic(vm);
        let result = f(guard.0, self.serial);
        match guard.0.delete_finished() {
            Ok(()) => result,
            Err(error) => result.and(Err(error.into())),
        }
    }
}

/// A host fault inside a guest call leaves the guest's state half changed: nothing more is called on it.
struct KillOnPanic<'a>(&'a mut Vm);

impl Drop for KillOnPanic<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill(Error::Lost(
                "the host panicked inside a call; this is a bug of the host".into(),
            ));
        }
    }
}
