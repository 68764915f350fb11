//! Encodings and containers against simple models, on random input. The seed is fixed: a run is like every other.

use crate::cases::runner;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use resty_proxy_wasm::codec::{header, header_map, path};
use resty_proxy_wasm::effect::{EffectKind, Effects};
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::guest::{Body, Output, Properties};
use resty_proxy_wasm::limits;
use resty_proxy_wasm::snapshot::HeaderMap;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs() -> impl Strategy<Value = Pairs> {
    vec((vec(any::<u8>(), 0..12), vec(any::<u8>(), 0..40)), 0..40)
}

fn map_of(pairs: &Pairs) -> HeaderMap {
    let mut map = HeaderMap::new();
    pairs.iter().for_each(|(name, value)| map.push(name, value));
    map
}

fn lower(pairs: &Pairs) -> Pairs {
    pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

fn owned(map: &HeaderMap) -> Pairs {
    map.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn encoded(map: &HeaderMap) -> Vec<u8> {
    let mut bytes = Vec::new();
    header_map::encode(map, &mut bytes);
    bytes
}

/// What decodes, encodes to the same bytes; what does not, is only an error.
fn decode_is_sound(bytes: &[u8]) {
    let Ok(decoded) = header_map::decode(bytes) else { return };
    let pairs: Pairs = decoded.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
    if !pairs.is_empty() && lower(&pairs) == pairs {
        assert_eq!(encoded(&map_of(&pairs)), bytes);
    }
}

#[test]
fn header_maps_survive_a_round_trip() {
    runner(2000)
        .run(&pairs(), |pairs| {
            let map = map_of(&pairs);
            let bytes = encoded(&map);
            assert_eq!(bytes.len(), header_map::encoded_size(&map));
            let decoded = header_map::decode(&bytes).expect("what was encoded");
            let decoded: Pairs = decoded.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            assert_eq!(decoded, lower(&pairs));
            Ok(())
        })
        .expect("every map");
}

#[test]
fn random_bytes_never_break_the_decoder() {
    runner(5000)
        .run(&vec(any::<u8>(), 0..200), |bytes| {
            decode_is_sound(&bytes);
            Ok(())
        })
        .expect("all bytes");
    // Small numbers are where the layout is: counts and lengths that nearly fit.
    let small = vec(prop_oneof![4 => Just(0u8), 2 => 0..6u8, 1 => any::<u8>()], 0..60);
    runner(20_000)
        .run(&small, |bytes| {
            decode_is_sound(&bytes);
            Ok(())
        })
        .expect("all bytes");
}

#[test]
fn damaged_maps_never_break_the_decoder() {
    let damage = (pairs(), vec((any::<usize>(), any::<u8>()), 1..4), any::<usize>());
    runner(5000)
        .run(&damage, |(pairs, changes, cut)| {
            let mut bytes = encoded(&map_of(&pairs));
            for (at, byte) in changes {
                let length = bytes.len().max(1);
                if let Some(slot) = bytes.get_mut(at % length) {
                    *slot = byte;
                }
            }
            decode_is_sound(&bytes);
            decode_is_sound(&bytes[..cut % (bytes.len() + 1)]);
            Ok(())
        })
        .expect("all maps");
}

#[derive(Clone, Debug)]
enum Edit {
    Push(&'static str, u8),
    Replace(&'static str, u8),
    Remove(&'static str),
}

#[test]
fn header_maps_behave_like_a_list() {
    let name = || select(vec!["a", "A", "b", "B", "", ":path", "x-long-name"]);
    let edit = prop_oneof![
        (name(), any::<u8>()).prop_map(|(n, v)| Edit::Push(n, v)),
        (name(), any::<u8>()).prop_map(|(n, v)| Edit::Replace(n, v)),
        name().prop_map(Edit::Remove),
    ];
    runner(2000)
        .run(&vec(edit, 0..40), |edits| {
            let (mut map, mut model): (HeaderMap, Pairs) = (HeaderMap::new(), Vec::new());
            for edit in edits {
                match edit {
                    Edit::Push(name, value) => {
                        map.push(name.as_bytes(), &[value]);
                        model.push((name.to_ascii_lowercase().into(), vec![value]));
                    }
                    Edit::Replace(name, value) => {
                        map.replace(name.as_bytes(), &[value]);
                        let name = name.to_ascii_lowercase().into_bytes();
                        let first = model.iter().position(|(n, _)| *n == name);
                        let mut index = 0;
                        model.retain(|(n, _)| {
                            index += 1;
                            *n != name || Some(index - 1) == first
                        });
                        match first {
                            Some(at) => model[at].1 = vec![value],
                            None => model.push((name, vec![value])),
                        }
                    }
                    Edit::Remove(name) => {
                        let before = model.len();
                        model.retain(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes()));
                        assert_eq!(map.remove(name.as_bytes()), before - model.len());
                    }
                }
                assert_eq!(owned(&map), model);
                assert_eq!(map.len(), model.len());
                assert_eq!(
                    map.byte_size(),
                    model.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>()
                );
                for (name, _) in &model {
                    let first = model.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice());
                    assert_eq!(map.get(&name.to_ascii_uppercase()), first);
                }
            }
            Ok(())
        })
        .expect("all edits");
}

#[test]
fn bodies_behave_like_a_vector() {
    let place = || prop_oneof![0..20usize, Just(usize::MAX), Just(u32::MAX as usize)];
    let splice = (place(), place(), vec(any::<u8>(), 0..6));
    let event = (vec(any::<u8>(), 0..8), vec(splice, 0..4), any::<bool>());
    runner(3000)
        .run(&vec(event, 1..6), |events| {
            let (mut body, mut model, mut passed, mut wanted) =
                (Body::default(), Vec::new(), Vec::new(), Vec::new());
            let last = events.len() - 1;
            for (index, (chunk, splices, pause)) in events.into_iter().enumerate() {
                let chunk: &'static [u8] = chunk.leak();
                // SAFETY: the chunk outlives the body.
                unsafe { body.begin(chunk) };
                model.extend_from_slice(chunk);
                for (start, size, value) in splices {
                    assert!(body.splice(start, size, &value));
                    let start = start.min(model.len());
                    let end = start.saturating_add(size).min(model.len());
                    model.splice(start..end, value);
                }
                assert_eq!(body.readable(), Some(model.as_slice()));
                let action = if pause { Action::Pause } else { Action::Continue };
                match body.end(action, index == last) {
                    Output::Hold => assert!(pause && index != last),
                    Output::Unchanged => passed.extend_from_slice(chunk),
                    Output::Replace(bytes) | Output::Pass(bytes) => {
                        passed.extend_from_slice(&bytes)
                    }
                }
                let held = pause && index != last;
                assert_eq!(body.readable(), held.then_some(model.as_slice()));
                if !held {
                    wanted.append(&mut model);
                }
            }
            assert_eq!(passed, wanted, "nothing is lost, nothing comes twice");
            Ok(())
        })
        .expect("all bodies");
}

#[test]
fn properties_behave_like_a_map_and_keep_their_caps() {
    let size =
        prop_oneof![0..100usize, Just(limits::PROPERTY_BYTES / 2), Just(limits::PROPERTY_BYTES)];
    runner(200)
        .run(&vec((0..300u32, size), 1..600), |sets| {
            let (mut kept, mut model) = (Properties::default(), std::collections::HashMap::new());
            for (path, size) in sets {
                let path = path.to_le_bytes();
                let value = vec![0; size];
                if kept.set(&path, &value) {
                    model.insert(path, value);
                }
                assert_eq!(kept.get(&path), model.get(&path).map(Vec::as_slice));
                let bytes: usize = model.iter().map(|(p, v)| p.len() + v.len()).sum();
                assert!(model.len() <= limits::PROPERTIES && bytes <= limits::PROPERTY_BYTES);
            }
            kept.clear();
            assert!(model.keys().all(|path| kept.get(path).is_none()));
            Ok(())
        })
        .expect("all sets");
}

#[test]
fn effects_come_out_as_they_went_in() {
    let effect = (any::<i32>(), vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20));
    runner(1000)
        .run(&vec(effect, 0..50), |list| {
            let mut effects = Effects::default();
            for (number, name, value) in &list {
                assert!(effects.push(EffectKind::SetPath, *number, name, value).is_ok());
            }
            assert!(effects.iter().map(|e| (e.number, e.name.to_vec(), e.value.to_vec())).eq(list));
            effects.clear();
            assert!(effects.is_empty() && effects.iter().next().is_none());
            Ok(())
        })
        .expect("all effects");
}

#[test]
fn property_paths_split_and_join() {
    let byte = prop_oneof![Just(0u8), Just(b'a'), Just(b'_'), any::<u8>()];
    runner(3000)
        .run(&vec(byte, 0..12), |bytes| {
            let mut segments = Vec::new();
            let mut rest = Some(bytes.as_slice());
            while let Some(path) = rest {
                let (segment, next) = path::split_first(path);
                segments.push(segment);
                rest = next;
            }
            assert_eq!(segments.join(&0), bytes);
            Ok(())
        })
        .expect("all paths");
}

#[test]
fn what_passes_for_a_header_can_not_end_a_line() {
    let byte = prop_oneof![any::<u8>(), select(vec![b'\r', b'\n', 0, b':', b' ', b'a'])];
    runner(5000)
        .run(&vec(byte, 0..6), |bytes| {
            let breaks = |list: &[u8]| bytes.iter().any(|b| list.contains(b));
            if header::is_token(&bytes) {
                assert!(!breaks(b"\r\n\0:; \t\"(),/<=>?@[\\]{}") && !bytes.is_empty());
            }
            assert_eq!(header::is_value(&bytes), !breaks(b"\r\n\0"));
            if header::is_path(&bytes) {
                assert!(!breaks(b"\r\n\0 \t"));
            }
            Ok(())
        })
        .expect("all bytes");
}
