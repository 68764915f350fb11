//! Sequences of events over several plugin contexts and streams.

use super::input::Input;
use crate::world::model::{Model, Step};
use crate::world::player::player;
use crate::world::{Filter, sim_host};

/// What takes longer is only slower.
const STEPS: usize = 48;

pub(super) fn run(bytes: &[u8]) {
    thread_local! {
        static FILTER: Filter = Filter::new(&sim_host(), &player("0_2_1"));
    }
    FILTER.with(|filter| {
        filter.host.reset();
        let mut model = Model::new(filter);
        let mut input = Input(bytes);
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            let step = step(&mut input);
            let tape = input.tape(6, &[]);
            model.take(&step, &tape);
        }
        model.finish();
    });
}

fn step(input: &mut Input<'_>) -> Step {
    let kind = input.byte();
    let which = usize::from(input.byte());
    match kind % 32 {
        0..=5 => Step::Open { context: which },
        6 | 7 => Step::Configure,
        8 => Step::Drop { context: which },
        9..=11 => Step::Resume { stream: which },
        12..=15 => Step::End { stream: which },
        16 => Step::Fork,
        _ => {
            let size = usize::from(input.byte());
            // A few chunks are longer than what is held without a copy.
            let size = if size > 250 { size * 16 } else { size % 50 };
            Step::Event { stream: which, callback: which % 4, size, end: kind & 32 != 0 }
        }
    }
}
