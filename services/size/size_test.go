package size

import "testing"

func TestBytesAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "536870912": 512 << 20, "512MiB": 512 << 20, "2GiB": 2 << 30, " 16 MiB ": 16 << 20, "1TiB": 1 << 40, "3KiB": 3 << 10, "1000": 1000,
	} {
		var b Bytes
		if err := b.Set(text); err != nil || b != want {
			t.Errorf("%q is %d (%v), want %d", text, b, err, want)
		}
		var again Bytes
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%d is written %q, which is %d (%v)", b, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "512MB", "512m", "9223372036854775807KiB", "99999999999999999999"} {
		var b Bytes
		if err := b.Set(text); err == nil {
			t.Errorf("%q is taken as %d", text, b)
		}
	}
}
