//! Reduces the memory of waiting stream threads. A thread's start needs much more stack than its waiting, and
//! the C library zeroes the thread-local variables of all linked libraries: 15 KiB that no stream uses. With
//! 10,000 streams these pages would outweigh everything else.

use std::mem::MaybeUninit;

/// Page size of every supported machine, or a divisor of it. In the latter case madvise(2) fails, which does
/// no harm.
const PAGE_BYTES: usize = 4096;

/// Releases the unused pages of this thread's stack: everything below the current frame, and pages of zeros
/// above it, which read as zeros again when they are touched. Costs a few microseconds.
#[allow(unsafe_code)]
pub(super) fn trim_stack() {
    let Some((low, high)) = stack_bounds() else { return };
    let here = (&raw const low).addr();
    if !(low..high).contains(&here) {
        return;
    }
    // One page is kept for calls from here.
    let unused = (here & !(PAGE_BYTES - 1)).saturating_sub(PAGE_BYTES);
    if unused > low {
        // SAFETY: the range is below every frame of this thread, in its own stack. Nothing there is read
        // again before it is written.
        unsafe { release_pages(low, unused - low) };
    }
    for page in
        (here.next_multiple_of(PAGE_BYTES)..high).step_by(PAGE_BYTES).filter(|page| page + PAGE_BYTES <= high)
    {
        // SAFETY: the page is in this thread's own stack mapping, readable and aligned. This thread is
        // executing here and writes none of it. No other thread has a pointer into it, since nothing is
        // borrowed across threads while a stream starts. Releasing a page of zeros does not change its
        // content.
        unsafe {
            let words =
                std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u64>(page), PAGE_BYTES / 8);
            if words.iter().all(|word| *word == 0) {
                release_pages(page, PAGE_BYTES);
            }
        }
    }
}

/// Releases pages to the kernel. They read as zeros afterwards.
///
/// # Safety
/// The range is private anonymous memory of this process, and its content is not needed.
#[allow(unsafe_code)]
unsafe fn release_pages(start: usize, bytes: usize) {
    // SAFETY: guaranteed by the caller. If the kernel rejects the range, nothing changes.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), bytes, libc::MADV_DONTNEED) };
}

/// Bounds of this thread's stack mapping. The thread-local variables are at its end.
#[allow(unsafe_code)]
fn stack_bounds() -> Option<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: pthread_getattr_np(3) fills the attributes of the calling thread. They are read and destroyed
    // only if it succeeded.
    let found = unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let found = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut bytes) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        found
    };
    found.then(|| (low.addr(), low.addr() + bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    std::thread_local! {
        static KEPT: std::cell::Cell<[u64; 2048]> = const { std::cell::Cell::new([0; 2048]) };
    }

    /// Fills a deep stack frame and returns the sum of its bytes.
    #[inline(never)]
    fn deep(seed: u8) -> u64 {
        let frame = [seed; 48 << 10];
        std::hint::black_box(&frame).iter().map(|byte| u64::from(*byte)).sum()
    }

    #[test]
    fn used_memory_is_kept_and_deep_calls_still_work() {
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
            let mut words = [0; 2048];
            (words[7], words[2000]) = (7, 2000);
            KEPT.set(words);
            let here = [3u8; 9000];
            let before = deep(1);
            for _ in 0..3 {
                trim_stack();
                assert_eq!((KEPT.get()[7], KEPT.get()[2000], KEPT.get()[8]), (7, 2000, 0));
                assert!(std::hint::black_box(&here).iter().all(|byte| *byte == 3));
                assert_eq!(deep(1), before);
            }
        });
        thread.unwrap().join().unwrap();
    }
}
