//! Shared data: what guests see of it, its room, and what is left of it when processes are killed.

use crate::world::{Filter, Probe, SHARED_MEMORY, guest, shared, sim_host};
use resty_proxy_wasm::limits;
use resty_proxy_wasm::ports::Stores;
use resty_proxy_wasm::shm::Shared;
use resty_proxy_wasm::store::Refusal;
use resty_proxy_wasm::vm::Options;

fn get(shared: &Shared, key: &[u8]) -> Option<(Vec<u8>, u32)> {
    let mut value = b"what was there".to_vec();
    let cas = shared.get(b"vm", key, &mut value).expect("an answer");
    cas.map(|cas| (value, cas))
}

#[test]
fn values_and_versions() {
    let probe = Probe::new(
        "request_headers: get_shared_data key
         request_headers: set_shared_data key one 7
         request_headers: get_shared_data key
         request_headers: set_shared_data key two 7
         request_headers: set_shared_data key two 1
         request_headers: set_shared_data key three 0
         request_headers: get_shared_data key
         request_headers: set_shared_data '' '' 0
         request_headers: get_shared_data ''",
    );
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["1", "0", "0 one 1", "8", "0", "0", "0 three 3", "0", "0 '' 4"]);
}

#[test]
fn each_vm_id_has_its_own_keys() {
    let world = sim_host();
    let load = |name: &str, vm_id: &str| {
        let options = Options { vm_id: vm_id.into(), ..Options::new(name) };
        Filter::load(&world, &guest("probe.wasm"), options).expect("the probe")
    };
    let filters = [load("a", "one"), load("b", "one"), load("c", ""), load("d", "on")];
    let script = |n: usize| {
        format!("configure: get_shared_data ekey; configure: set_shared_data ekey {n} 0")
    };
    let contexts: Vec<_> =
        filters.iter().enumerate().map(|(n, filter)| filter.context(&script(n))).collect();
    assert_eq!(contexts.len(), 4);
    let gets: Vec<_> = world.said().into_iter().filter(|line| line.contains("get_")).collect();
    let answers: Vec<_> = gets.iter().map(|line| line.split_once("-> ").expect("one").1).collect();
    assert_eq!(answers, ["1", "0 0 1", "1", "1"]);
}

#[test]
fn values_of_all_sizes_replace_one_another() {
    let shared = shared();
    let mut last = 0;
    for size in [0, 1, 23, 24, 25, 100, 2000, 2049, 5000, 100_000, 3, 0] {
        let value: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let cas = shared.set(b"vm", b"key", &value, last).expect("room");
        assert_ne!(cas, last);
        assert_eq!(get(&shared, b"key"), Some((value, cas)));
        last = cas;
    }
    assert_eq!(shared.delete(b"vm", b"key"), Ok(true));
    assert_eq!((shared.delete(b"vm", b"key"), get(&shared, b"key")), (Ok(false), None));
    assert_eq!(shared.size(), Ok((SHARED_MEMORY, 0)), "all room is back");
}

#[test]
fn keys_of_one_space() {
    let shared = shared();
    for n in 0..100u8 {
        shared.set(b"vm", &[n], b"", 0).expect("room");
        shared.set(b"v", &[b'm', n], b"", 0).expect("room");
    }
    let mut keys = shared.keys(b"vm", usize::MAX).expect("keys");
    keys.sort_unstable();
    assert_eq!(keys, (0..100u8).map(|n| vec![n]).collect::<Vec<_>>());
    assert_eq!(shared.keys(b"vm", 7).expect("keys").len(), 7);
    assert_eq!(shared.keys(b"none", 7), Ok(vec![]));
}

#[test]
fn what_is_too_large_is_refused() {
    let shared = Shared::new(8 << 20, |_| ()).expect("memory");
    let key = vec![b'k'; limits::SHARED_KEY + 1];
    let value = vec![b'v'; limits::SHARED_VALUE + 1];
    assert_eq!(shared.set(b"", &key, b"", 0), Err(Refusal::TooLarge));
    assert_eq!(shared.set(b"", b"", &value, 0), Err(Refusal::TooLarge));
    assert!(shared.set(b"", &key[1..], &value[1..], 0).is_ok());
}

#[test]
fn a_guest_that_fills_it_is_warned_once_and_nothing_is_lost() {
    let lines: String = (0..80)
        .map(|n| format!("request_headers: set_shared_data k{n} \\R{{10000}}x 0\n"))
        .collect();
    let probe = Probe::new(&lines);
    probe.open().request_headers();
    let answers = probe.answers();
    let kept = answers.iter().filter(|answer| *answer == "0").count();
    assert!((20..60).contains(&kept), "{answers:?}");
    assert!(answers[..kept].iter().all(|answer| answer == "0"));
    assert!(answers[kept..].iter().all(|answer| answer == "10"));
    assert_eq!(probe.warned(), ["proxy_on_request_headers: the shared memory is full"]);
    let shared = Stores::shared(&*probe.filter.host).expect("memory");
    assert_eq!(shared.keys(b"", usize::MAX).expect("keys").len(), kept);
}

#[test]
fn the_least_recently_used_give_way() {
    let shared = shared();
    shared.set_eviction(true).expect("the lock");
    let value = vec![b'v'; 4000];
    let set = |n: u32| shared.set(b"vm", &n.to_le_bytes(), &value, 0).expect("room");
    (0..50).for_each(|n| {
        set(n);
    });
    for n in 50..1000 {
        assert!(get(&shared, &3u32.to_le_bytes()).is_some(), "used all the time");
        set(n);
    }
    let there = |n: u32| get(&shared, &n.to_le_bytes()).is_some();
    assert!(!there(0) && !there(500) && there(3) && there(999));
    let newest = (0..1000).rev().take_while(|n| there(*n)).count();
    assert!(newest > 80, "{newest}");
    assert_eq!(shared.keys(b"vm", usize::MAX).expect("keys").len(), newest + 1);

    // One that is replaced while it is the oldest and there is no room, and one that needs the room of many.
    for n in 0..5000u32 {
        shared.set(b"vm", b"same", &value[..(n % 4000) as usize], 0).expect("room");
        set(n);
    }
    assert!(shared.set(b"vm", b"large", &[0; 200_000], 0).is_ok());
    assert_eq!(get(&shared, b"large").map(|(value, _)| value.len()), Some(200_000));
    assert_eq!(shared.set(b"vm", b"huge", &vec![0; SHARED_MEMORY], 0), Err(Refusal::Full));

    shared.set_eviction(false).expect("the lock");
    let full = (0..1000u32).map(|n| shared.set(b"vm", &n.to_be_bytes(), &value, 0));
    assert!(full.into_iter().any(|set| set == Err(Refusal::Full)));
    shared.set_eviction(true).expect("the lock");
    assert!(shared.set(b"vm", b"again", &value, 0).is_ok());
}
