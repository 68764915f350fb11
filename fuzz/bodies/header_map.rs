//! Serialized header maps, and the map that they are read into against a simple list.

use resty_proxy_wasm::codec::header_map::{decode, encode, encoded_size};
use resty_proxy_wasm::limits;
use resty_proxy_wasm::snapshot::HeaderMap;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) fn run(bytes: &[u8]) {
    let Ok(pairs) = decode(bytes) else { return };
    assert!(bytes.len() <= limits::HEADER_MAP_BYTES && pairs.len() <= limits::HEADER_MAP_PAIRS);
    let mut map = HeaderMap::new();
    pairs.iter().for_each(|(name, value)| map.push(name, value));
    let mut list: Pairs =
        pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    same(&map, &list);
    let mut encoded = Vec::new();
    encode(&map, &mut encoded);
    assert_eq!(encoded.len(), encoded_size(&map));
    assert_eq!(owned(decode(&encoded).expect("what was encoded")), list);
    // There is one way to write a map, but for the case of names and the ways to say that it is empty.
    if !pairs.is_empty() {
        assert_eq!(encoded.to_ascii_lowercase(), bytes.to_ascii_lowercase());
    }
    change(&mut map, &mut list, &pairs);
}

/// Each pair again, as a change of the map.
fn change(map: &mut HeaderMap, list: &mut Pairs, pairs: &[(&[u8], &[u8])]) {
    const ENOUGH: usize = 32;
    for (name, value) in pairs.iter().take(ENOUGH) {
        let lower = name.to_ascii_lowercase();
        match value.first().copied().unwrap_or_default() % 3 {
            0 => {
                let before = list.len();
                list.retain(|(n, _)| *n != lower);
                assert_eq!(map.remove(name), before - list.len());
            }
            1 => {
                map.push(name, value);
                list.push((lower, value.to_vec()));
            }
            _ => {
                map.replace(name, value);
                match list.iter().position(|(n, _)| *n == lower) {
                    None => list.push((lower, value.to_vec())),
                    Some(first) => {
                        list[first].1 = value.to_vec();
                        let mut index = 0;
                        list.retain(|(n, _)| {
                            index += 1;
                            index - 1 == first || *n != lower
                        });
                    }
                }
            }
        }
    }
    same(map, list);
}

fn same(map: &HeaderMap, list: &Pairs) {
    assert_eq!(owned(map.iter().collect()), *list);
    assert_eq!((map.len(), map.is_empty()), (list.len(), list.is_empty()));
    let size: usize = list.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert_eq!(map.byte_size(), size);
    for (name, _) in list.iter().take(4) {
        let first = list.iter().find(|(n, _)| n == name).map(|(_, value)| &**value);
        assert_eq!(map.get(name), first);
    }
}

fn owned(pairs: Vec<(&[u8], &[u8])>) -> Pairs {
    pairs.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}
