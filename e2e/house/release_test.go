package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestNoReleaseKnowsOfBuildTags(t *testing.T) {
	root := open(t).root
	files := 0
	for _, top := range []string{"Makefile", ".ci", "deploy"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			files++
			report(t, Releases(rel, string(text)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 4 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestReleasesFindsABuildWithTags(t *testing.T) {
	found(t, Releases("Makefile", "go build ./...\nVERSION := $(shell git describe --tags --always)\n"))
	found(t, Releases("Makefile", "\tgo build -tags brown ./services/cmd/nearside\n"), "builds with tags")
	found(t, Releases("Makefile", "GOFLAGS=-tags=x go build\n"), "builds with tags")
	found(t, Releases("deploy/Dockerfile", "COPY nearside-brown /nearside\n"), "builds with tags")
}
