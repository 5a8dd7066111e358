//! One description of a type's products, compiled for each instruction set that has loops. It must not know any type.

/// A type's products, once for every instruction set that has loops: `multiply` for AVX2 and `multiply_vnni`, or as they
/// are called. `$loops` is the module of the loops in `$product`, which must do what [`super::Int8::multiply`] says.
macro_rules! products {
    ($loops:ident, |$rows:ident, $x:ident, $out:ident| $product:expr) => {
        products!(@ "avx2,fma,f16c", avx2, multiply, [], [],
            $loops, |$rows, $x, $out| $product);
        products!(@ "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", vnni, multiply_vnni, [], [],
            $loops, |$rows, $x, $out| $product);
    };
    (
        $name:ident<$block:ident: $bound:path, $n:ident>, $vnni:ident,
        $loops:ident, |$rows:ident, $x:ident, $out:ident| $product:expr
    ) => {
        products!(@ "avx2,fma,f16c", avx2, $name, [$block: $bound, const $n: usize], [$block, $n],
            $loops, |$rows, $x, $out| $product);
        products!(@ "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", vnni, $vnni,
            [$block: $bound, const $n: usize], [$block, $n], $loops, |$rows, $x, $out| $product);
    };
    (
        @ $features:literal, $isa:ident, $name:ident, [$($generics:tt)*], [$($arguments:tt)*],
        $loops:ident, |$rows:ident, $x:ident, $out:ident| $product:expr
    ) => {
        /// Only [`crate::kernels_on`] hands this out, after checking the CPU.
        pub(super) fn $name<$($generics)*>(rows: Rows<'_>, x: &Activations, out: &mut [f32]) {
            #[target_feature(enable = $features)]
            fn with_features<$($generics)*>($rows: Rows<'_>, $x: &Activations, $out: &mut [f32]) {
                use crate::int8::$isa as $loops;
                $product;
            }
            // SAFETY: kernels_on has found the instructions available.
            unsafe { with_features::<$($arguments)*>(rows, x, out) }
        }
    };
}
pub(crate) use products;
