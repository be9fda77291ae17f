//! The floating-point environment: sets rounding mode and flush-to-zero to their defaults while a kernel runs, so that results do not depend on
//! the caller's.
#![allow(unsafe_code, reason = "the control register is accessible by inline assembly alone")]

/// The default environment. Restores the caller's when it is dropped.
pub(crate) struct DefaultFloatEnvironment {
    #[cfg(target_arch = "x86_64")]
    callers: u32,
}

#[cfg(target_arch = "x86_64")]
impl DefaultFloatEnvironment {
    /// Round to nearest, no flush to zero, exceptions masked: the state in which a program starts.
    const DEFAULT: u32 = 0x1f80;
    /// The flags of exceptions that were raised, which are not settings.
    const RAISED: u32 = 0x3f;

    pub fn enter() -> Self {
        let mut callers = 0u32;
        // SAFETY: the instruction stores MXCSR to a local variable.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut callers, options(nostack, preserves_flags)) };
        // Writing the register is slower than reading it.
        if callers & !Self::RAISED != Self::DEFAULT {
            Self::set(Self::DEFAULT);
        }
        Self { callers }
    }

    fn set(value: u32) {
        // SAFETY: the instruction loads MXCSR from a local variable, whose value is the default or was in the register before: no reserved bit
        // is set.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for DefaultFloatEnvironment {
    fn drop(&mut self) {
        if self.callers & !Self::RAISED != Self::DEFAULT {
            Self::set(self.callers);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl DefaultFloatEnvironment {
    /// Does nothing: on other processors, results depend on the caller's environment.
    pub fn enter() -> Self {
        Self {}
    }
}
