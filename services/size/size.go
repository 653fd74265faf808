// Package size reads numbers of bytes as people write them in flags and files.
package size

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a number of bytes. It is a flag value: 536870912, 512MiB, 2GiB.
type Bytes int64

var units = []struct {
	suffix string
	of     int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// Set reads a whole number, with KiB, MiB, GiB or TiB after it or nothing for bytes.
func (b *Bytes) Set(s string) error {
	number, of := strings.TrimSpace(s), int64(1)
	for _, u := range units {
		if cut, ok := strings.CutSuffix(number, u.suffix); ok {
			number, of = strings.TrimSpace(cut), u.of
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/of {
		return errors.New("write it like 512MiB or 2GiB")
	}
	*b = Bytes(n * of)
	return nil
}

// String writes it in the largest unit that leaves a whole number.
func (b Bytes) String() string {
	for i := len(units) - 1; i >= 0 && b != 0; i-- {
		if u := units[i]; int64(b)%u.of == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.of, u.suffix)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Type names it in help and errors.
func (b *Bytes) Type() string { return "size" }
