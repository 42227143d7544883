// Command packmodules packs the modules of this repository that users fetch into
// a file-based module proxy, as the real one would serve them after a release.
//
//	packmodules REPOSITORY PROXY
//
// The modules are the core, everything under adapters and cmd, and revocation/redisstore. Their
// version is the one that the requires among our own modules name; packmodules fails if they
// name several, or if one names a version that no release can have (v0.0.0, a
// pseudo-version), because such a module could not be fetched by anybody.
//
// The commands are packed as they are tagged: `go install` refuses a go.mod with a
// replace, which theirs have between releases.
//
// For each module packed it prints one line: path, version, folder.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

const core = "github.com/m2mauth/m2mauth"

func main() {
	log.SetFlags(0)
	log.SetPrefix("packmodules: ")
	if len(os.Args) != 3 {
		log.Fatal("usage: packmodules REPOSITORY PROXY")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(repository, proxy string) error {
	files, err := moduleFiles(repository)
	if err != nil {
		return err
	}
	version, err := requiredVersion(files)
	if err != nil {
		return err
	}
	for _, dir := range slices.Sorted(maps.Keys(files)) {
		path := files[dir].Module.Mod.Path
		if !isReleased(path) {
			continue
		}
		if err := pack(dir, module.Version{Path: path, Version: version}, proxy); err != nil {
			return fmt.Errorf("pack %s: %w", path, err)
		}
		fmt.Println(path, version, dir)
	}
	return nil
}

func isReleased(path string) bool {
	return path == core || path == core+"/revocation/redisstore" || strings.HasPrefix(path, core+"/adapters/") || strings.HasPrefix(path, core+"/cmd/")
}

// moduleFiles reads every go.mod of the repository, by the folder it stands in.
func moduleFiles(repository string) (map[string]*modfile.File, error) {
	files := make(map[string]*modfile.File)
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		if entry.IsDir() || entry.Name() != "go.mod" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := modfile.Parse(path, data, nil)
		if err != nil {
			return err
		}
		if file.Module == nil {
			return fmt.Errorf("%s has no module line", path)
		}
		files[filepath.Dir(path)] = file
		return nil
	})
	return files, err
}

// requiredVersion returns the one version that our modules require of each other.
func requiredVersion(files map[string]*modfile.File) (string, error) {
	var version string
	var mistakes []error
	for _, file := range files {
		for _, require := range file.Require {
			mod := require.Mod
			if mod.Path != core && !strings.HasPrefix(mod.Path, core+"/") {
				continue
			}
			switch {
			case module.IsPseudoVersion(mod.Version), semver.Compare(mod.Version, "v0.0.0") <= 0:
				mistakes = append(mistakes, fmt.Errorf("%s requires %s: no release has that version", file.Module.Mod.Path, mod))
			case version == "":
				version = mod.Version
			case version != mod.Version:
				mistakes = append(mistakes, fmt.Errorf("%s requires %s, another module %s", file.Module.Mod.Path, mod, version))
			}
		}
	}
	if version == "" && mistakes == nil {
		mistakes = append(mistakes, errors.New("no module requires "+core+", so its next version is unknown"))
	}
	return version, errors.Join(mistakes...)
}

// pack writes the files of the module proxy protocol for one module.
// The zip leaves out nested modules, as a fetch from the repository does.
func pack(dir string, mod module.Version, proxy string) error {
	escaped, err := module.EscapePath(mod.Path)
	if err != nil {
		return err
	}
	target := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	goMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(mod.Path, core+"/cmd/") {
		if dir, goMod, err = withoutReplaces(dir, goMod); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	info := fmt.Sprintf(`{"Version":%q,"Time":%q}`, mod.Version, time.Now().UTC().Format(time.RFC3339))
	for name, data := range map[string][]byte{
		"list":                []byte(mod.Version + "\n"),
		mod.Version + ".info": []byte(info),
		mod.Version + ".mod":  goMod,
	} {
		if err := os.WriteFile(filepath.Join(target, name), data, 0o644); err != nil {
			return err
		}
	}
	archive, err := os.Create(filepath.Join(target, mod.Version+".zip"))
	if err != nil {
		return err
	}
	return errors.Join(zip.CreateFromDir(archive, mod, dir), archive.Close())
}

// withoutReplaces returns a copy of a module's folder, and its go.mod file, in which
// nothing is replaced.
func withoutReplaces(dir string, goMod []byte) (string, []byte, error) {
	file, err := modfile.Parse("go.mod", goMod, nil)
	if err != nil {
		return "", nil, err
	}
	for _, r := range slices.Clone(file.Replace) {
		if err := file.DropReplace(r.Old.Path, r.Old.Version); err != nil {
			return "", nil, err
		}
	}
	file.Cleanup()
	if goMod, err = file.Format(); err != nil {
		return "", nil, err
	}
	scratch, err := os.MkdirTemp("", "")
	if err != nil {
		return "", nil, err
	}
	err = errors.Join(os.CopyFS(scratch, os.DirFS(dir)), os.WriteFile(filepath.Join(scratch, "go.mod"), goMod, 0o644))
	return scratch, goMod, err
}
