//! Run-time CPU dispatch: loops compiled for several instruction sets, and a few of those loops.

/// Compiles a function for AVX-512, for AVX2 and for any processor, and calls the best that this
/// one can run.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $out)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $out)? {
                    plain($($arg),*)
                }
                if $crate::simd::has_avx512() {
                    // SAFETY: the processor has just been found to have these features.
                    return unsafe { avx512($($arg),*) };
                }
                if $crate::simd::has_avx2() {
                    // SAFETY: the processor has just been found to have these features.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use vectorised;

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    level() >= 2
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    level() >= 1
}

/// 2 with AVX-512, 1 with AVX2 and FMA, 0 without: what pulp detects, which the kernels that are
/// written over its vectors go by too, kept.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn level() -> u8 {
    static LEVEL: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);
    #[cold]
    fn detect() -> u8 {
        let found = match pulp::Arch::new() {
            pulp::Arch::V4(_) => 2,
            pulp::Arch::V3(_) => 1,
            _ => 0,
        };
        LEVEL.store(found, std::sync::atomic::Ordering::Relaxed);
        found
    }
    match LEVEL.load(std::sync::atomic::Ordering::Relaxed) {
        u8::MAX => detect(),
        known => known,
    }
}

/// Values summed side by side before they are added up.
const LANES: usize = 32;
/// Values summed in single precision before the sum is carried on in double.
const BLOCK: usize = 32 * LANES;

vectorised! {
    /// Sum of `values`.
    pub(crate) fn sum(values: &[f32]) -> f64 {
        reduce(values, values, |a, _| a)
    }
}

vectorised! {
    /// Sum of the squared differences of `values` from `centre`.
    pub(crate) fn squares(values: &[f32], centre: f32) -> f64 {
        reduce(values, values, |a, _| (a - centre) * (a - centre))
    }
}

/// Sum of `term` over pairs: in [`LANES`] single-precision lanes within a block, in double across
/// blocks.
#[inline(always)]
pub(crate) fn reduce(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let mut total = 0.0;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        let mut lanes = [0.0_f32; LANES];
        let (whole_a, rest_a) = a.as_chunks::<LANES>();
        let (whole_b, rest_b) = b.as_chunks::<LANES>();
        for (a, b) in whole_a.iter().zip(whole_b) {
            for lane in 0..LANES {
                lanes[lane] += term(a[lane], b[lane]);
            }
        }
        let rest: f32 = rest_a.iter().zip(rest_b).map(|(&a, &b)| term(a, b)).sum();
        total += f64::from(lanes.iter().sum::<f32>() + rest);
    }
    total
}

/// Copies `source` to `target`, of the same length: for loops that are compiled for several
/// instruction sets, where a call would cost more than the copy.
#[inline(always)]
pub(crate) fn copy(target: &mut [f32], source: &[f32]) {
    #[inline(always)]
    fn part<const N: usize>(target: &mut [f32], source: &[f32], start: usize) {
        target[start..start + N].copy_from_slice(&source[start..start + N]);
    }
    #[inline(always)]
    fn whole<const N: usize>(target: &mut [f32], source: &[f32], len: usize) {
        for start in (0..len / N).map(|i| i * N) {
            part::<N>(target, source, start);
        }
        // The last ones once more, with their neighbours before them.
        part::<N>(target, source, len - N);
    }
    let len = target.len();
    let source = &source[..len];
    match len {
        16.. => whole::<16>(target, source, len),
        8..16 => whole::<8>(target, source, len),
        4..8 => whole::<4>(target, source, len),
        _ => target.iter_mut().zip(source).for_each(|(target, source)| *target = *source),
    }
}

/// Value `step t + k` becomes value `t` of part `k` of `step`, each part as long as the longest.
#[inline(always)]
pub(crate) fn deal(values: &[f32], step: usize, parts: &mut [f32]) {
    let pitch = values.len().div_ceil(step);
    if step == 2 {
        let (even, odd) = parts.split_at_mut(pitch);
        let (pairs, rest) = values.as_chunks::<2>();
        for ((even, odd), [a, b]) in even.iter_mut().zip(odd.iter_mut()).zip(pairs) {
            *even = *a;
            *odd = *b;
        }
        if let [last] = rest {
            even[pitch - 1] = *last;
        }
        return;
    }
    for (part, first) in parts.chunks_mut(pitch).zip(0..step) {
        let values = values.get(first..).unwrap_or_default().iter().step_by(step);
        part.iter_mut().zip(values).for_each(|(place, value)| *place = *value);
    }
}

/// Prefetches `values` into the first-level cache.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32]) {
    values.chunks(16).for_each(|line| prefetch_at(line.as_ptr()));
}

/// Prefetches the cache line at `place`, a valid address or not.
#[inline(always)]
pub(crate) fn prefetch_at(place: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint, for any address; SSE is part of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

vectorised! {
    /// Adds `source` to `target`.
    pub(crate) fn add(target: &mut [f32], source: &[f32]) {
        for (target, source) in target.iter_mut().zip(source) {
            *target += source;
        }
    }
}

vectorised! {
    /// Every second value of `source`, from the first on.
    pub(crate) fn every_second(target: &mut [f32], source: &[f32]) {
        let (pairs, rest) = source.as_chunks::<2>();
        for (target, pair) in target.iter_mut().zip(pairs) {
            *target = pair[0];
        }
        if let (Some(last), Some(value)) = (target.get_mut(pairs.len()), rest.first()) {
            *last = *value;
        }
    }
}
