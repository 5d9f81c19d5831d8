package schema

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	// maxSource bounds all sources of one set together, in bytes: parsed, they take some
	// hundred times that.
	maxSource = 16 << 20
	// maxSourceErrors is how many errors are told of one set.
	maxSourceErrors = 20
)

// CompileSources compiles .proto files with all that they import. The files are paths,
// like those that open takes, and lie in one of the import paths. With no import paths,
// files are taken to lie where their package says: shop/v1/cart.proto of package shop.v1
// lies in the folder of shop. What is in google/protobuf, google/api and google/rpc need
// not be there. open is called by several goroutines; what it does not find it says with
// fs.ErrNotExist. Errors are of the form "path:line:column: what", one a line.
func CompileSources(ctx context.Context, open func(path string) (io.ReadCloser, error), importPaths, files []string) (*descriptorpb.FileDescriptorSet, error) {
	s := &sources{open: open, roots: importPaths, paths: make(map[string]string)}
	names, err := s.importNames(files)
	if err != nil {
		return nil, err
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.ResolverFunc(s.find),
		Reporter:       reporter.NewReporter(s.report, nil),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(ctx, names...)
	if err := s.result(err); err != nil {
		return nil, err
	}
	var roots []protoreflect.FileDescriptor
	for _, f := range compiled {
		roots = append(roots, f)
	}
	return fileSet(roots)
}

// sources finds what is imported, and keeps the errors.
type sources struct {
	open  func(path string) (io.ReadCloser, error)
	roots []string

	mu     sync.Mutex
	paths  map[string]string // of import names, once found
	size   int               // bytes read
	opened int
	errs   []error
}

var errTooManyErrors = errors.New("too many errors")

// report implements reporter.ErrorReporter.
func (s *sources) report(err reporter.ErrorWithPos) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, s.located(err))
	if len(s.errs) == maxSourceErrors {
		return errTooManyErrors
	}
	return nil
}

// located is an error with the path of its file, not the name that it is imported by.
// s.mu is held.
func (s *sources) located(err reporter.ErrorWithPos) error {
	at := err.GetPosition()
	path := at.Filename
	if found, ok := s.paths[path]; ok {
		path = found
	}
	if at.Line > 0 {
		path = fmt.Sprintf("%s:%d:%d", path, at.Line, at.Col)
	}
	return fmt.Errorf("%s: %w", path, err.Unwrap())
}

// result is all that was reported; or else err, what ended the compiler.
func (s *sources) result(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) == 0 {
		if at, ok := errors.AsType[reporter.ErrorWithPos](err); ok {
			return s.located(at)
		}
		return err
	}
	if errors.Is(err, errTooManyErrors) {
		return errors.Join(append(s.errs, err)...)
	}
	return errors.Join(s.errs...)
}

// importNames are the names by which the files are imported: their paths below the
// import path that they lie in.
func (s *sources) importNames(files []string) ([]string, error) {
	if len(files) == 0 {
		return nil, errors.New("compiling sources: no files given")
	}
	guess := len(s.roots) == 0
	var names []string
	for _, f := range files {
		if guess {
			root, err := s.guessRoot(f)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(s.roots, root) {
				s.roots = append(s.roots, root)
			}
		}
		name, err := s.importName(f)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func (s *sources) importName(file string) (string, error) {
	for _, root := range s.roots {
		if name, err := filepath.Rel(root, file); err == nil && filepath.IsLocal(name) {
			return filepath.ToSlash(name), nil
		}
	}
	return "", fmt.Errorf("compiling %q: it lies in none of the import paths %q", file, s.roots)
}

var packageStatement = regexp.MustCompile(`(?m)^\s*package\s+([\w.]+)\s*;`)

// guessRoot is the folder that a file's package begins in, or else the file's own.
func (s *sources) guessRoot(file string) (string, error) {
	source, err := s.read(file)
	if err != nil {
		return "", fmt.Errorf("compiling sources: %w", err)
	}
	folder := filepath.Dir(file)
	found := packageStatement.FindSubmatch(source)
	if found == nil {
		return folder, nil
	}
	below := filepath.FromSlash(strings.ReplaceAll(string(found[1]), ".", "/"))
	if folder == below {
		return ".", nil
	}
	if root, ok := strings.CutSuffix(folder, string(filepath.Separator)+below); ok {
		return root, nil
	}
	return folder, nil
}

// find implements protocompile.Resolver. Standard files come from the binary even when
// they lie there too, as they do when the set is used.
func (s *sources) find(name string) (protocompile.SearchResult, error) {
	if f := standardFile(name); f != nil {
		return protocompile.SearchResult{Desc: f}, nil
	}
	for _, root := range s.roots {
		path := filepath.Join(root, filepath.FromSlash(name))
		source, err := s.read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return protocompile.SearchResult{}, err
		}
		s.mu.Lock()
		s.paths[name] = path
		s.mu.Unlock()
		return protocompile.SearchResult{Source: strings.NewReader(string(source))}, nil
	}
	return protocompile.SearchResult{}, fmt.Errorf("%q is in none of the import paths %q", name, s.roots)
}

// read reads a file within the bounds.
func (s *sources) read(path string) ([]byte, error) {
	f, err := s.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s.mu.Lock()
	defer s.mu.Unlock() // one at a time, because they share the bounds
	if s.opened++; s.opened > 2*maxFiles {
		return nil, fmt.Errorf("reading %q: more than %d files", path, maxFiles)
	}
	source, err := io.ReadAll(io.LimitReader(f, int64(maxSource-s.size)+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	if s.size += len(source); s.size > maxSource {
		return nil, fmt.Errorf("reading %q: the sources have more than %d bytes together", path, maxSource)
	}
	return source, nil
}

// fileSet is compiled files with what they import, each after that, within the bounds of
// a set and without the places of declarations.
func fileSet(files []protoreflect.FileDescriptor) (*descriptorpb.FileDescriptorSet, error) {
	compiled := new(descriptorpb.FileDescriptorSet)
	seen := make(map[string]bool)
	for _, f := range files {
		closure(f, seen, func(d protoreflect.FileDescriptor) {
			compiled.File = append(compiled.File, slim(protoutil.ProtoFromFileDescriptor(d)))
		})
	}
	// Encoded and decoded, options are the same from every source: what the compiler has
	// of them are dynamic messages.
	encoded, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(compiled)
	if err != nil {
		return nil, fmt.Errorf("encoding descriptors: %w", plain(err))
	}
	return decodeSet(encoded)
}
