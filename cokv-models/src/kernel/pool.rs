//! Parallel loops on candle's barrier pool, so that one set of threads serves the quantised layers and our kernels.
//!
//! The loops must not be nested: a candle operation inside one would wait for the pool that runs it.

use std::sync::Mutex;

use candle_core::utils::barrier_pool;

/// Runs `work` for every index below `count`.
pub fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    match count {
        0 => {}
        1 => work(0),
        _ => barrier_pool().execute_chunked(count, |range| range.for_each(&work)),
    }
}

/// Collects `work(index)` for every index below `count`.
pub fn map<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let slots: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    for_each(count, |index| {
        let result = work(index);
        // Nobody panics while holding the lock, so it cannot be poisoned.
        if let Ok(mut slot) = slots[index].lock() {
            *slot = Some(result);
        }
    });
    slots.into_iter().filter_map(|slot| slot.into_inner().ok().flatten()).collect()
}

/// Runs `work` on consecutive pieces of `data`, `length` elements each (the last may be shorter).
pub fn for_each_chunk<T: Send>(data: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let chunks: Vec<Mutex<&mut [T]>> = data.chunks_mut(length).map(Mutex::new).collect();
    for_each(chunks.len(), |index| {
        if let Ok(mut chunk) = chunks[index].lock() {
            work(index, &mut chunk);
        }
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_keep_their_order() {
        assert_eq!(super::map(1000, |index| index * 2), (0..1000).map(|index| index * 2).collect::<Vec<_>>());
        let mut data = vec![0; 103];
        super::for_each_chunk(&mut data, 10, |index, chunk| chunk.fill(index));
        assert!(data.iter().enumerate().all(|(at, &value)| value == at / 10));
    }
}
