package replica

import "bytes"

// A few bytes of JSON can become hundreds in memory: each "0," of a list of structs makes a struct. So what
// a stranger sends is looked at before it is decoded.

// Wide reports whether the lists and objects that lie directly in the outermost value of b have more than
// most elements together. It makes nothing, and says nothing of whether b is valid.
func Wide(b []byte, most int) bool {
	if bytes.Count(b, []byte{','}) < most {
		return false // as with nearly all that is sent
	}
	depth, n := 0, 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth++; depth == 2 {
				n++
			}
		case '}', ']':
			depth--
		case ',':
			if depth == 2 {
				n++
			}
		}
		if n > most {
			return true
		}
	}
	return false
}

const (
	// maxFrameElements bounds those of a frame: rows, deletes, what was planned, loads, and the rest.
	maxFrameElements = 4*MaxFrameRows + 4*MaxStandings
	// MaxRowBytes bounds the body of one row. What summary bounds by 128 KiB, tags and metadata, may
	// take six times that as JSON, where < is \u003c; endpoints, ports and zones come on top.
	MaxRowBytes = 1 << 20
	// maxRowElements bounds those of a row: endpoints, zones, versions, flags, and what newer versions may add.
	maxRowElements = 4_096
)
