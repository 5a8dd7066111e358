//! Arrays written out element by element. The functions of `std::array` are compiled on their own where they are not
//! inlined, and then without the kernel's instructions. It must not know what the elements are.

/// `each!(4, |i| f(i))` is `[f(0), f(1), f(2), f(3)]`, for 2, 4, 8 and 16.
macro_rules! each {
    (2, |$i:ident| $element:expr) => {
        each!(@ $i, $element, 0 1)
    };
    (4, |$i:ident| $element:expr) => {
        each!(@ $i, $element, 0 1 2 3)
    };
    (8, |$i:ident| $element:expr) => {
        each!(@ $i, $element, 0 1 2 3 4 5 6 7)
    };
    (16, |$i:ident| $element:expr) => {
        each!(@ $i, $element, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $element:expr, $($at:literal)*) => {
        [$({
            let $i: usize = $at;
            $element
        }),*]
    };
}
pub(crate) use each;
