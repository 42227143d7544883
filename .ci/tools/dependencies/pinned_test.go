package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// byCommit are the third-party modules that may be required at a commit, with the
// reason. A release says what it works with; of a commit nobody will hear that it
// does not build with the next Go.
var byCommit = map[string]string{
	"google.golang.org/genproto/googleapis/rpc": "has no tags",
	"golang.org/x/perf":                         "has no tags",
	"github.com/c2sp/wycheproof":                "has no tags",
}

func TestNothingIsRequiredAtACommitThatHasReleases(t *testing.T) {
	t.Parallel()
	const root = "../../.."
	found, modules := map[string]string{}, 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git"):
			return fs.SkipDir
		case entry.Name() != "go.mod":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		modules++
		required, err := atCommits(path, data)
		maps.Copy(found, required)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if modules < 10 {
		t.Errorf("only %d modules were found", modules)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if byCommit[name] == "" {
			t.Errorf("%s is required at a commit: %s. Take a release, or give a reason in byCommit", name, found[name])
		}
	}
	for name := range byCommit {
		if found[name] == "" {
			t.Errorf("%s is required at no commit any more: take it from byCommit", name)
		}
	}
}

// atCommits returns the modules that a go.mod requires itself at a commit.
func atCommits(path string, data []byte) (map[string]string, error) {
	file, err := modfile.Parse(path, data, nil)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, r := range file.Require {
		if !r.Indirect && module.IsPseudoVersion(r.Mod.Version) {
			found[r.Mod.Path] = r.Mod.Version + " in " + strings.TrimPrefix(path, "../../../")
		}
	}
	return found, nil
}

func TestAtCommits(t *testing.T) {
	t.Parallel()
	found, err := atCommits("go.mod", []byte(`module example.test

require (
	example.test/released v1.2.3
	example.test/candidate v1.2.3-rc.1
	example.test/untagged v0.0.0-20250813145105-42675adae3e6
	example.test/between v1.2.4-0.20250813145105-42675adae3e6
	example.test/others v0.0.0-20250813145105-42675adae3e6 // indirect
)
`))
	want := map[string]string{
		"example.test/untagged": "v0.0.0-20250813145105-42675adae3e6 in go.mod",
		"example.test/between":  "v1.2.4-0.20250813145105-42675adae3e6 in go.mod",
	}
	if err != nil || !maps.Equal(found, want) {
		t.Errorf("%v, %v", found, err)
	}
}
