//! The calling thread's rounding mode and flush-to-zero, set to the default while a kernel runs: results must not depend on them.
#![allow(unsafe_code, reason = "the control register can be reached by instructions alone")]

/// Restores the caller's settings when it is dropped.
pub(crate) struct DefaultFloatEnvironment {
    #[cfg(target_arch = "x86_64")]
    callers: u32,
}

#[cfg(target_arch = "x86_64")]
impl DefaultFloatEnvironment {
    /// Round to nearest, no flush to zero, exceptions masked: the state in which a program starts.
    const DEFAULT: u32 = 0x1f80;
    /// Exceptions that have been raised; no setting.
    const RAISED: u32 = 0x3f;

    pub fn enter() -> Self {
        let mut callers = 0u32;
        // SAFETY: stores MXCSR to a local variable.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut callers, options(nostack, preserves_flags)) };
        // Setting the register costs more than looking at it.
        if callers & !Self::RAISED != Self::DEFAULT {
            Self::set(Self::DEFAULT);
        }
        Self { callers }
    }

    fn set(value: u32) {
        // SAFETY: loads MXCSR from a local variable; both values that are ever set are valid ones.
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
    /// On other processors the caller's settings are used as they are.
    pub fn enter() -> Self {
        Self {}
    }
}
