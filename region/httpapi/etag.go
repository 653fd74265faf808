package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// writeTagged sends body with an entity tag, or 304 when the client has it already. The tag
// is a digest of the body and not the revision it was read at: marks such as "overdue"
// change without a revision, and most revisions concern something else. The headers tell
// where the catalogue stands either way. Answers with ages in them are never tagged.
func writeTagged(w http.ResponseWriter, known []string, body any) error {
	b := buffers.Get().(*buffer)
	defer b.release()
	if err := b.enc.Encode(body); err != nil {
		return err
	}
	sum := sha256.Sum256(b.Bytes())
	tag := `W/"` + hex.EncodeToString(sum[:12]) + `"`
	h := w.Header()
	h.Set("Etag", tag)
	if matches(known, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b.Bytes())
	return nil
}

// matches compares weakly, as RFC 9110 wants it of If-None-Match. What is no entity tag
// matches nothing.
func matches(known []string, tag string) bool {
	for _, line := range known {
		for one := range strings.SplitSeq(line, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == strings.TrimPrefix(tag, "W/") {
				return true
			}
		}
	}
	return false
}
