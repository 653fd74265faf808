package store

import (
	"fmt"
	"slices"
)

// CheckOps refuses what no Store accepts: too many operations or bytes (ErrTooLarge), an
// empty or over-long key, a key that occurs twice, a delete or check that carries a value, a
// check without a guard.
func CheckOps(ops []Op) error {
	if len(ops) > MaxOps {
		return fmt.Errorf("%d operations, at most %d fit in one commit: %w", len(ops), MaxOps, ErrTooLarge)
	}
	size := 0
	seen := make(map[string]struct{}, len(ops))
	for _, op := range ops {
		if len(op.Key) == 0 || len(op.Key) > MaxKey {
			return fmt.Errorf("a key of %d bytes: keys have 1 to %d", len(op.Key), MaxKey)
		}
		if _, twice := seen[op.Key]; twice {
			return fmt.Errorf("key %q occurs twice in one commit", op.Key)
		}
		seen[op.Key] = struct{}{}
		if op.Delete && op.Value != nil {
			return fmt.Errorf("the delete of key %q carries a value", op.Key)
		}
		if op.Check && (op.Delete || op.Value != nil || !op.Guarded) {
			return fmt.Errorf("the check of key %q must be guarded and write nothing", op.Key)
		}
		if op.If != 0 && !op.Guarded {
			return fmt.Errorf("key %q has a guard revision but is not guarded", op.Key)
		}
		size += len(op.Key) + len(op.Value)
	}
	if size > MaxBytes {
		return fmt.Errorf("%d bytes, at most %d fit in one commit: %w", size, MaxBytes, ErrTooLarge)
	}
	return nil
}

// Puts reports whether ops write a value: what a full store refuses.
func Puts(ops []Op) bool {
	return slices.ContainsFunc(ops, func(op Op) bool { return !op.Delete && !op.Check })
}

// WithoutPuts returns the ops that a full store takes: deletes, and checks. The guards of
// the puts left out do not hold the others up.
func WithoutPuts(ops []Op) []Op {
	var out []Op
	for _, op := range ops {
		if op.Delete || op.Check {
			out = append(out, op)
		}
	}
	return out
}
