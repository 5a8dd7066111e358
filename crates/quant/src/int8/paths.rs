//! One description of a type's products, compiled for each instruction set that has loops. It must not know any type.

use super::Multiply;

/// A type's products, for each instruction set that has loops.
#[derive(Clone, Copy)]
pub(crate) struct Products {
    pub(crate) avx2: Multiply,
    pub(crate) vnni: Multiply,
    pub(crate) amx: Multiply,
}

/// Makes `PRODUCTS`, or a function that returns them for each of a family of types. `$loops` is the module of the loops in
/// `$product`, which must do what [`super::Int8::multiply`] says.
macro_rules! products {
    ($loops:ident, |$rows:ident, $x:ident, $out:ident| $product:expr) => {
        pub(super) const PRODUCTS: crate::int8::paths::Products =
            products!(@ [], [], $loops, |$rows, $x, $out| $product);
    };
    (
        $name:ident<$block:ident: $bound:path, $n:ident>,
        $loops:ident, |$rows:ident, $x:ident, $out:ident| $product:expr
    ) => {
        pub(super) const fn $name<$block: $bound, const $n: usize>() -> crate::int8::paths::Products {
            products!(@ [$block: $bound, const $n: usize], [$block, $n],
                $loops, |$rows, $x, $out| $product)
        }
    };
    (
        @ [$($generics:tt)*], [$($arguments:tt)*],
        $loops:ident, |$rows:ident, $x:ident, $out:ident| $product:expr
    ) => {
        crate::int8::paths::Products {
            avx2: products!(@ "avx2,fma,f16c", avx2, [$($generics)*], [$($arguments)*],
                $loops, |$rows, $x, $out| $product),
            vnni: products!(@ "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", vnni,
                [$($generics)*], [$($arguments)*], $loops, |$rows, $x, $out| $product),
            amx: products!(@ "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", amx,
                [$($generics)*], [$($arguments)*], $loops, |$rows, $x, $out| $product),
        }
    };
    (
        @ $features:literal, $isa:ident, [$($generics:tt)*], [$($arguments:tt)*],
        $loops:ident, |$rows:ident, $x:ident, $out:ident| $product:expr
    ) => {{
        /// Only [`crate::kernels_on`] hands this out, after checking the CPU.
        fn multiply<$($generics)*>(rows: Rows<'_>, x: &Activations, out: &mut [f32]) {
            #[target_feature(enable = $features)]
            fn with_features<$($generics)*>($rows: Rows<'_>, $x: &Activations, $out: &mut [f32]) {
                use crate::int8::$isa as $loops;
                $product;
            }
            // SAFETY: kernels_on has found the instructions available.
            unsafe { with_features::<$($arguments)*>(rows, x, out) }
        }
        multiply::<$($arguments)*>
    }};
}
pub(crate) use products;
