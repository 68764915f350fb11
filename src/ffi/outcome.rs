//! What an event came to, as Lua reads it.

use std::cell::RefCell;

use super::effects;
use super::types::{
    RPW_BODY_HOLD, RPW_BODY_PASS, RPW_BODY_REPLACE, RPW_BODY_UNCHANGED, rpw_effect_t, rpw_outcome_t,
};
use crate::effect::Effects;
use crate::guest::Output;
use crate::ports::{Phase, RequestId};
use crate::vm::{Outcome, StreamRef, Vm};

/// What the last outcome points to.
#[derive(Default)]
pub(super) struct LastOutcome(RefCell<Lent>);

#[derive(Default)]
struct Lent {
    effects: Effects,
    list: Vec<rpw_effect_t>,
    body: Vec<u8>,
}

impl LastOutcome {
    /// Writes the outcome of an event of a stream, whose effects Lua gets. The phase of its request is told where that is known.
    pub(super) fn export(
        &self,
        vm: &mut Vm,
        stream: StreamRef,
        result: Outcome,
        phase: Option<Phase>,
        outcome: &mut rpw_outcome_t,
    ) {
        let mut lent = self.0.borrow_mut();
        lent.forget_effects(outcome);
        if let Some(s) = vm.state_mut().contexts.streams.get_mut(&stream.id)
            && !s.effects.is_empty()
        {
            lent.apply((s.request, phase), &mut s.effects, outcome);
        }
        lent.finish(result, outcome);
    }

    /// Writes an outcome without effects.
    pub(super) fn export_plain(&self, result: Outcome, outcome: &mut rpw_outcome_t) {
        let mut lent = self.0.borrow_mut();
        lent.forget_effects(outcome);
        lent.finish(result, outcome);
    }
}

impl Lent {
    /// Does what needs no Lua, and moves the other effects to where Lua reads them. The buffers change places, so that none is
    /// allocated again.
    fn apply(
        &mut self,
        (request, phase): (RequestId, Option<Phase>),
        effects: &mut Effects,
        outcome: &mut rpw_outcome_t,
    ) {
        // In order: what comes behind one that Lua does is left to Lua, too.
        let Some(done) = effects.iter().position(|effect| !effects::apply(request, phase, &effect))
        else {
            return effects.drop_waiting();
        };
        effects.take_into(&mut self.effects);
        self.list.clear();
        self.list.extend(self.effects.iter().skip(done).map(|effect| rpw_effect_t {
            kind: effects::code(effect.kind),
            number: effects::number(&effect),
            name: effect.name.as_ptr().cast(),
            name_length: effect.name.len(),
            value: effect.value.as_ptr().cast(),
            value_length: effect.value.len(),
        }));
        outcome.effects = self.list.as_ptr();
        outcome.effects_length = self.list.len();
    }

    #[inline]
    fn forget_effects(&mut self, outcome: &mut rpw_outcome_t) {
        outcome.effects_length = 0;
        if !self.effects.is_empty() {
            self.effects.clear();
        }
    }

    fn finish(&mut self, result: Outcome, outcome: &mut rpw_outcome_t) {
        outcome.awaits_call = result.awaits_call.into();
        outcome.expects_body = result.expects_body.into();
        outcome.rewrites_body = result.rewrites_body.into();
        outcome.ends = result.ends.into();
        outcome.still_holds = result.still_holds.into();
        // A large body is kept until the next outcome and no longer.
        if self.body.capacity() != 0 {
            self.body = Vec::new();
        }
        outcome.body_action = RPW_BODY_UNCHANGED;
        if result.body != Output::Unchanged {
            self.take(result.body, outcome);
        }
        outcome.body = self.body.as_ptr().cast();
        outcome.body_length = self.body.len();
    }

    #[inline(never)]
    fn take(&mut self, body: Output, outcome: &mut rpw_outcome_t) {
        outcome.body_action = match body {
            Output::Unchanged => RPW_BODY_UNCHANGED,
            Output::Hold => RPW_BODY_HOLD,
            Output::Replace(bytes) => {
                self.body = bytes;
                RPW_BODY_REPLACE
            }
            Output::Pass(bytes) => {
                self.body = bytes;
                RPW_BODY_PASS
            }
        };
    }
}
