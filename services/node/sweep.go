package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nearside/nearside/services/backup"
)

// sweep removes what restores that were killed left in the data directory. The node needs
// none of that, so nothing that goes wrong with it keeps it from starting.
func sweep(dataDir string, log *slog.Logger) {
	swept, err := backup.Sweep(dataDir)
	for _, name := range swept {
		log.Warn("removed what a restore that did not end left", "dir", dataDir, "name", name)
	}
	if err != nil {
		log.Warn("leftovers of a restore stay in the data directory", "cause", err)
	}
}

// halves are the files of the data directory that are replaced as a whole: by what they are called
// until they are complete. A number follows.
var halves = []string{".records", ".head", ".token", ".probe-"}

// sweepHalves removes the halves that this node's earlier processes left when they were killed,
// and the work directories of recoveries that were: each could be as large as the region. The directory
// must be locked, and its store in its place: then no recovery runs, and none left its only copy in one.
func sweepHalves(dataDir string, log *slog.Logger) {
	entries, err := os.ReadDir(dataDir)
	if err != nil {
		log.Warn("files that were not completed stay in the data directory", "cause", err)
		return
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), backup.Recovering) {
			if err := os.RemoveAll(filepath.Join(dataDir, e.Name())); err != nil {
				log.Warn("what a recovery that did not end left stays in the data directory", "cause", err)
				continue
			}
			log.Warn("removed what a recovery that did not end left", "dir", dataDir, "name", e.Name())
			continue
		}
		half := slices.ContainsFunc(halves, func(name string) bool {
			number, ok := strings.CutPrefix(e.Name(), name)
			return ok && number != "" && strings.Trim(number, "0123456789") == ""
		})
		if !half || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dataDir, e.Name())); err != nil {
			log.Warn("a file that was not completed stays in the data directory", "cause", err)
		}
	}
}
