package events

import (
	"fmt"
	"io"
	"os"
	"sort"
)

// segment describes one file. The values of a sealed one never change; the active one's
// are replaced by the writer under the log's lock. Marks are only ever appended, so that a
// copy stays true.
type segment struct {
	path   string
	number uint64
	size   int64 // of its sound part; nothing beyond it is read
	first  uint64
	last   uint64 // 0 = it is empty
	born   int64  // time of its first event; times are milliseconds since 1970
	newest int64  // greatest time in it
	marks  []mark
}

// mark is an entry of the sparse index: a place where a frame begins.
type mark struct {
	offset int64
	id     uint64
	before int64 // greatest time of all frames in front of it
}

// markEvery is how far apart marks are, and so how much is read in vain at most.
const markEvery = 64 << 10

// add takes note of a frame at offset that ends at end.
func (s *segment) add(offset, end int64, id uint64, at int64) {
	if n := len(s.marks); n == 0 || offset-s.marks[n-1].offset >= markEvery {
		s.marks = append(s.marks, mark{offset: offset, id: id, before: s.newest})
	}
	if s.last == 0 {
		s.first, s.born = id, at
	}
	s.last, s.newest, s.size = id, max(s.newest, at), end
}

// seek returns an offset in front of which no frame has an id above after, and, with
// since not 0, none is of since or later.
func (s *segment) seek(after uint64, since int64) int64 {
	i := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].id > after })
	if since != 0 {
		i = max(i, sort.Search(len(s.marks), func(i int) bool { return s.marks[i].before >= since }))
	}
	if i == 0 {
		return int64(len(magic))
	}
	return s.marks[i-1].offset
}

// openSegment reads a file and finds its sound part. torn is what is behind it.
func openSegment(path string, number uint64, most int64) (s segment, torn int64, damaged int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, 0, 0, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return s, 0, 0, err
	}
	if !st.Mode().IsRegular() {
		return s, 0, 0, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return s, 0, 0, err
	}
	s = segment{path: path, number: number, size: int64(len(magic))}
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return s, 0, 0, fmt.Errorf("%s: %w", path, errNotOurs)
	}
	end, damaged := readFrames(b[len(magic):], func(offset int, fr frame) bool {
		if fr.id > s.last {
			at := int64(len(magic) + offset)
			s.add(at, at+headLen+int64(len(fr.payload)), fr.id, fr.at)
		}
		return true
	})
	s.size = int64(len(magic) + end)
	return s, st.Size() - s.size, damaged, nil
}

// chunk is how much of a file is read at once.
const chunk = 64 << 10

// frames calls f for the frames of s from offset on, until f returns false. The payload is
// valid during the call only.
func (s *segment) frames(offset int64, f func(fr frame) bool) error {
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	buf := make([]byte, 0, min(chunk, s.size-offset))
	more := true
	for more {
		have := len(buf)
		want := min(int64(cap(buf)-have), s.size-offset-int64(have))
		n, err := file.ReadAt(buf[have:have+int(want)], offset+int64(have))
		if err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		buf = buf[:have+n]
		atEnd := offset+int64(len(buf)) >= s.size || n == 0
		end, _ := readFrames(buf, func(_ int, fr frame) bool {
			more = f(fr)
			return more
		})
		switch {
		case !more || atEnd:
			return nil
		case end == 0:
			return nil // a frame larger than the buffer: damaged
		}
		offset += int64(end)
		buf = buf[:copy(buf, buf[end:])]
	}
	return nil
}
