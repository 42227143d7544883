package main

import (
	"archive/zip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	const adapter, command, store = core + "/adapters/x", core + "/cmd/x", core + "/revocation/redisstore"
	tests := map[string]struct {
		requires map[string]string // module path to the version of the core that it requires
		err      string
	}{
		"packs what users fetch at the version required": {map[string]string{adapter: "v0.1.0", command: "v0.1.0", store: "v0.1.0", core + "/examples": "v0.1.0"}, ""},
		"refuses two versions":                           {map[string]string{adapter: "v0.1.0", core + "/examples": "v0.2.0"}, "another module"},
		"refuses v0.0.0":                                 {map[string]string{adapter: "v0.0.0"}, "no release has that version"},
		"refuses a pseudo-version":                       {map[string]string{adapter: "v0.0.0-20260101000000-0123456789ab"}, "no release has that version"},
		"refuses to guess a version":                     {nil, "its next version is unknown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository, proxy := t.TempDir(), t.TempDir()
			write(t, repository, "go.mod", "module "+core+"\n")
			write(t, repository, "core.go", "package m2mauth\n")
			for path, version := range test.requires {
				dir := filepath.Join(repository, strings.TrimPrefix(path, core))
				write(t, dir, "go.mod", "module "+path+"\n\nrequire "+core+" "+version+"\n\nreplace "+core+" => ../..\n")
			}
			err := run(repository, proxy)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got error %v, want one with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := packed(t, proxy, core); !slices.Equal(got, []string{"core.go", "go.mod"}) {
				t.Errorf("the core's zip holds %q: nested modules do not belong there", got)
			}
			for _, path := range []string{adapter, command, store} {
				if got := packed(t, proxy, path); !slices.Equal(got, []string{"go.mod"}) {
					t.Errorf("the zip of %s holds %q", path, got)
				}
			}
			for path, replaced := range map[string]bool{adapter: true, command: false} {
				data, err := os.ReadFile(filepath.Join(proxy, path, "@v", "v0.1.0.mod"))
				if err != nil || strings.Contains(string(data), "replace") != replaced || !strings.Contains(string(data), "require "+core+" v0.1.0") {
					t.Errorf("the go.mod of %s, in which go install refuses a replace: %s (%v)", path, data, err)
				}
			}
			if _, err := os.Stat(filepath.Join(proxy, core, "examples")); err == nil {
				t.Error("examples were packed, which nobody fetches")
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// packed returns the names in a module's zip, without the module and version.
func packed(t *testing.T, proxy, path string) (names []string) {
	t.Helper()
	archive, err := zip.OpenReader(filepath.Join(proxy, path, "@v", "v0.1.0.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	for _, file := range archive.File {
		names = append(names, strings.TrimPrefix(file.Name, path+"@v0.1.0/"))
	}
	slices.Sort(names)
	return names
}
