package httpapi

import (
	"fmt"
	"net/http"
	"time"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// maxBackups is how many backups a node sends at once. Each holds all records in memory until its reader
// has taken them.
const maxBackups = 2

// snapshot streams a backup of the region. One that breaks off is noticed by whoever reads
// it: the file ends with a checksum.
func (d *door) snapshot(w http.ResponseWriter, r *request) error {
	st, err := d.Registry.BackupStamp(r.Context())
	if err != nil {
		return err
	}
	var img store.Image
	if r.Method != http.MethodHead { // which needs no records
		select {
		case d.backups <- struct{}{}:
			defer func() { <-d.backups }()
		default:
			return &api.Error{
				Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("this node sends %d snapshots already", maxBackups),
				Remedy: "try again when one of them is done, or ask another node",
			}
		}
		if img, err = d.Registry.Backup(r.Context()); err != nil {
			return err
		}
		st = registry.Stamp{Version: api.Version{Region: d.Region, Epoch: img.Epoch, Revision: img.Revision}, Source: api.SourceStore, Region: d.Region}
	}
	now := time.Now()
	h := w.Header()
	d.stamps.set(h, st)
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
