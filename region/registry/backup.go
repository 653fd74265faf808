package registry

import (
	"context"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// BackupStamp returns where a backup would be from, and the error that Backup would have at once, without
// asking the store.
func (r *Registry) BackupStamp(ctx context.Context) (Stamp, error) {
	if err := r.authorize(ctx, VerbOperate, ""); err != nil {
		return Stamp{}, err
	}
	if err := r.needStore(); err != nil {
		return Stamp{}, err
	}
	return r.stamp(r.Snapshot(), api.SourceMemory), nil
}

// Backup returns every record of the region's store, of one moment, for a backup: also those
// that the catalogue does not know. It asks the store, so it fails while that is away.
func (r *Registry) Backup(ctx context.Context) (store.Image, error) {
	if err := r.authorize(ctx, VerbOperate, ""); err != nil {
		return store.Image{}, err
	}
	if err := r.needStore(); err != nil {
		return store.Image{}, err
	}
	lctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	img, err := r.cfg.Store.Load(lctx)
	if ctx.Err() == nil { // a caller that hung up says nothing of the store
		r.health.note(err, r.log)
	}
	if err != nil {
		return store.Image{}, r.storeError(err)
	}
	r.log.Info("backup taken", "epoch", img.Epoch.String(), "revision", img.Revision, "records", len(img.Records))
	return img, nil
}
