package events

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	magic      = "NSEVENT1"
	headLen    = 24
	maxPayload = 8 << 10 // an event with the longest fields is less than half of it
	maxID      = 1 << 60 // ids count on from what is read: no file may exhaust them
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one event as stored.
type frame struct {
	id      uint64
	at      int64 // milliseconds since 1970
	payload []byte
}

// appendFrame adds the stored form of f to b.
func appendFrame(b []byte, f frame) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.payload)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, f.id)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.at))
	b = append(b, f.payload...)
	binary.LittleEndian.PutUint32(b[start+4:], checksum(b[start:]))
	return b
}

// checksum covers a whole frame but its own place.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, b[8:])
}

var (
	errShort  = errors.New("the frame is not complete")
	errBroken = errors.New("the frame is damaged")
)

// readFrame reads the frame at the start of b and returns its length. The payload is part
// of b. With errShort b ends before the frame does. With errBroken n is the length that the
// frame says it has, 0 when that is impossible.
func readFrame(b []byte) (f frame, n int, err error) {
	if len(b) < headLen {
		return frame{}, 0, errShort
	}
	length := binary.LittleEndian.Uint32(b)
	if length == 0 || length > maxPayload {
		return frame{}, 0, errBroken
	}
	n = headLen + int(length)
	if len(b) < n {
		return frame{}, 0, errShort
	}
	if checksum(b[:n]) != binary.LittleEndian.Uint32(b[4:]) {
		return frame{}, n, errBroken
	}
	f = frame{id: binary.LittleEndian.Uint64(b[8:]), at: int64(binary.LittleEndian.Uint64(b[16:])), payload: b[headLen:n]}
	if f.id == 0 || f.id > maxID {
		return frame{}, n, errBroken
	}
	return f, n, nil
}

// readFrames calls f for every sound frame of b and returns where they end: at the end of
// b, at an incomplete frame, or at a damaged one after which nothing is sound. A damaged
// frame that is followed by a sound one is stepped over and counted. It ends early when f
// returns false, right after the frame that f was called with.
func readFrames(b []byte, f func(offset int, fr frame) bool) (end, damaged int) {
	for end < len(b) {
		fr, n, err := readFrame(b[end:])
		if err != nil {
			if n == 0 {
				return end, damaged
			}
			if _, _, err := readFrame(b[end+n:]); err != nil {
				return end, damaged
			}
			end += n
			damaged++
			continue
		}
		at := end
		end += n
		if !f(at, fr) {
			return end, damaged
		}
	}
	return end, damaged
}
