//! Random events and host functions with random arguments: nothing panics, ids stay what they are, nothing that could
//! split a message comes out. The seed is fixed: a run is like every other.

use crate::cases::runner;
use crate::world::model::{Model, Step};
use crate::world::player::{FUNCTIONS, Operation, player, tape};
use crate::world::{Filter, sim_host};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let changes = ["header_map", "buffer_bytes", "property", "context", "stream", "local_response"];
    let changes = |at: &usize| changes.iter().any(|part| FUNCTIONS[*at].name.contains(part));
    let changing: Vec<usize> = (0..FUNCTIONS.len()).filter(changes).collect();
    let numbers = || vec(any::<u32>(), 12);
    let call = |(function, numbers)| Operation::Call(function, numbers);
    let operation = prop_oneof![
        300 => (select(changing), numbers()).prop_map(call),
        100 => (0..FUNCTIONS.len(), numbers()).prop_map(call),
        20 => (0..6u32).prop_map(Operation::Allocator),
        1 => Just(Operation::Trap),
    ];
    vec(operation, 0..10)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<usize>().prop_map(|context| Step::Open { context }),
        20 => (any::<usize>(), 0..4usize, 0..50usize, any::<bool>())
            .prop_map(|(stream, callback, size, end)| Step::Event { stream, callback, size, end }),
        2 => any::<usize>().prop_map(|stream| Step::Resume { stream }),
        4 => any::<usize>().prop_map(|stream| Step::End { stream }),
        2 => Just(Step::Configure),
        2 => any::<usize>().prop_map(|context| Step::Drop { context }),
        1 => Just(Step::Fork),
    ]
}

fn model() -> Model {
    Model::new(&Filter::new(&sim_host(), &player("0_2_1")))
}

#[test]
fn random_sequences() {
    let steps = vec((step(), 0..3u32, operations()), 1..60);
    runner(1000)
        .run(&steps, |steps| {
            let mut model = model();
            for (step, answer, operations) in &steps {
                model.take(step, &tape(*answer, operations, &[]));
            }
            model.finish();
            Ok(())
        })
        .expect("all sequences");
}

#[test]
fn each_function_with_every_edge_in_every_place() {
    let mut model = model();
    for (index, function) in FUNCTIONS.iter().enumerate() {
        for place in 0..function.params.len() {
            for edge in 0..10u32 {
                // 16 n is "odd" with choice n; 16 n + 1 makes sense.
                let mut numbers = vec![1 + 16 * 10; 12];
                numbers[place] = 16 * edge;
                let step = if model.streams() == 0 {
                    Step::Open { context: 0 }
                } else {
                    Step::Event {
                        stream: 0,
                        callback: (place + edge as usize) % 4,
                        size: 5,
                        end: true,
                    }
                };
                model.take(&step, &tape(0, &[Operation::Call(index, numbers)], &[]));
            }
        }
    }
    model.finish();
}
