package httpapi

import (
	"fmt"
	"net/http"
	"time"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// snapshot streams a backup of the region. One that breaks off is noticed by whoever reads
// it: the file ends with a checksum.
func (d *door) snapshot(w http.ResponseWriter, r *request) error {
	img, err := d.Registry.Backup(r.Context())
	if err != nil {
		return err
	}
	now := time.Now()
	h := w.Header()
	d.stamps.set(h, registry.Stamp{
		Version: api.Version{Region: d.Region, Epoch: img.Epoch, Revision: img.Revision}, Source: api.SourceStore, Region: d.Region,
	})
	h.Set("Content-Type", backup.MediaType)
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%s.nearside"`, d.Region, now.UTC().Format("20060102-150405")))
	out := patientWriter{w: w, rc: controller(w)}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if err := backup.Write(out, d.Region, d.Node, now, img); err != nil {
		d.Logger.Warn("a backup broke off", "request_id", h.Get(api.HeaderRequestID), "cause", err)
		panic(http.ErrAbortHandler) // so that the client does not take it for the end
	}
	return nil
}

// patientWriter bounds each write of a long answer instead of all of it.
type patientWriter struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (p patientWriter) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(frameTimeout)) // without deadlines the server's own stands
	return p.w.Write(b)
}
