package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// LoadOptions is how strict Load is. The zero value is the strictest.
type LoadOptions struct {
	// AllowUnresolved accepts references to what no text declares. The share of
	// such a reference is answered UNAVAILABLE.
	AllowUnresolved bool
}

// Load reads files, and of folders every *.yaml, *.yml and *.json in the order of
// their names, those that begin with a dot and folders in them left out. All of
// it is one Set, whatever file an object is in. The error is of type Faults: there
// is either a Set or an error.
func Load(opts LoadOptions, paths ...string) (*Set, error) {
	var in intake
	for _, path := range paths {
		in.load(path)
	}
	if !opts.AllowUnresolved {
		in.reportUnresolved()
	}
	if faults := in.faults.faults(); len(faults) > 0 {
		return nil, faults
	}
	return &in.set, nil
}

// Parse reads one text, of which file is the name to report. References that lead
// out of the text are no faults: other texts may declare what they mean, and
// Set.Unresolved finds them. There is either a Set or a fault.
func Parse(file string, data []byte) (*Set, Faults) {
	var in intake
	in.read(file, data)
	if faults := in.faults.faults(); len(faults) > 0 {
		return nil, faults
	}
	return &in.set, nil
}

func (in *intake) load(path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		in.unreadable(path, err)
	case info.IsDir():
		in.loadFolder(path)
	default:
		in.loadFile(path)
	}
}

// InFolder tells whether an entry of a folder is one that Load reads, by its name.
func InFolder(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func (in *intake) loadFolder(path string) {
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		in.unreadable(path, err)
		return
	}
	for _, entry := range entries {
		name := filepath.Join(path, entry.Name())
		if !InFolder(entry.Name()) {
			continue
		}
		// A mounted ConfigMap is made of links to files: what counts is the target.
		switch info, err := os.Stat(name); {
		case err != nil:
			in.unreadable(name, err)
		case info.Mode().IsRegular():
			in.loadFile(name)
		}
	}
}

func (in *intake) loadFile(path string) {
	f, err := os.Open(path)
	if err != nil {
		in.unreadable(path, err)
		return
	}
	defer f.Close()
	// One byte more than the limit tells that there is more; how much it is
	// would take reading all of it.
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	switch {
	case err != nil:
		in.unreadable(path, err)
	case len(data) > maxText:
		in.refuse(Position{File: path}, data, "more than %d bytes, the limit of a file", maxText)
	default:
		in.read(path, data)
	}
}

// unreadable reports a file that cannot be read, without its name a second time.
// What it declares nobody knows, so no reference is reported as leading nowhere.
func (in *intake) unreadable(path string, err error) {
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	in.blind = true
	in.refuse(Position{File: path}, nil, "cannot be read: %v", err)
}
