package rest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
)

// OpenAPIOptions are what an OpenAPI document says of itself. The zero options are
// valid.
type OpenAPIOptions struct {
	Title, Version string
	// Servers are the URLs below which the paths are; none means the server that the
	// document is from.
	Servers []string
}

// maxDocumentParts bounds a document: the parameters, properties and values of enums
// that it has, and its texts. Types that have each other as fields would otherwise make
// query parameters without end. A part has some 100 bytes.
const maxDocumentParts = 200_000

// OpenAPI describes in OpenAPI 3.1 how methods are called with HTTP and JSON: each
// binding of each method, and POST /package.Service/Method for a method that has
// none. The same methods make the same document. A method that is given twice is
// described as the first one.
//
// What OpenAPI has no words for is listed as x-sluice-left-out with a reason.
func OpenAPI(o OpenAPIOptions, methods []*schema.Method) ([]byte, error) {
	d := &document{
		known: map[string]bool{}, schemas: map[string]*ordered{},
		paths: map[string]*pathItem{}, ids: map[string]bool{}, tags: map[string]string{},
	}
	d.describeErrors()
	methods = slices.Clone(methods)
	slices.SortStableFunc(methods, func(a, b *schema.Method) int { return cmp.Compare(a.Path, b.Path) })
	methods = slices.CompactFunc(methods, func(a, b *schema.Method) bool { return a.Path == b.Path })
	for _, m := range methods {
		if err := d.method(m); err != nil {
			return nil, err
		}
	}
	if err := d.components(); err != nil {
		return nil, err
	}
	return d.write(o).indented(), nil
}

// document is an OpenAPI document in the making.
type document struct {
	known   map[string]bool           // types that are or will be components
	pending []protoreflect.Descriptor // of known, what is not written yet
	schemas map[string]*ordered       // the components, by full name

	paths   map[string]*pathItem // by their shape: names of parameters do not tell paths apart
	ids     map[string]bool
	tags    map[string]string // service → its comment
	leftOut []any
	size    int // of the document, in parts
}

// pathItem is what one path does.
type pathItem struct {
	path       string   // with the names of its first operation
	parameters []string // these names
	operations map[string]*ordered
}

func (d *document) tooLarge() error {
	return fmt.Errorf("describe methods in OpenAPI: more than %d parameters and properties, limit %[1]d; ask for a route with fewer methods", maxDocumentParts)
}

// describeErrors writes what every method may answer with. The types are described by
// name: there may be no descriptor of them among those of the methods.
func (d *document) describeErrors() {
	d.known[statusName], d.known[anyName] = true, true
	d.schemas[statusName], d.schemas[anyName] = statusSchema(), anySchema()
}

// method describes each binding of a method.
func (d *document) method(m *schema.Method) error {
	service := m.Descriptor.Parent()
	if _, told := d.tags[string(service.FullName())]; !told {
		d.tags[string(service.FullName())] = d.comment(service)
	}
	if len(m.Bindings) == 0 {
		return d.binding(m, 0, schema.Binding{Verb: "POST", Template: m.Path, Body: "*"})
	}
	for i, b := range m.Bindings {
		if err := d.binding(m, i, b); err != nil {
			return err
		}
	}
	return nil
}

// verbs are the methods of HTTP that OpenAPI 3.1 knows, in the order in which they
// are written.
var verbs = []string{"GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"}

// anyVerb is what a binding for every verb is described for.
var anyVerb = []string{"GET", "PUT", "POST", "DELETE", "PATCH"}

// binding describes one way to call a method. The first one has the method's name.
func (d *document) binding(m *schema.Method, number int, b schema.Binding) error {
	template, err := readTemplate(m, b.Template)
	if err != nil {
		d.leaveOut(m, b, err.Error())
		return nil
	}
	id := string(m.Descriptor.FullName())
	if number > 0 {
		id += fmt.Sprintf("_%d", number+1)
	}
	if b.Verb != "*" {
		return d.operation(m, b, b.Verb, template, id)
	}
	for _, verb := range anyVerb {
		if err := d.operation(m, b, verb, template, id+"_"+strings.ToLower(verb)); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) operation(m *schema.Method, b schema.Binding, verb string, t *openTemplate, id string) error {
	if !slices.Contains(verbs, verb) {
		d.leaveOut(m, b, fmt.Sprintf("OpenAPI does not know the verb %q", verb))
		return nil
	}
	item := d.paths[t.shape]
	if item == nil {
		item = &pathItem{path: t.path, parameters: t.names(), operations: map[string]*ordered{}}
		d.paths[t.shape] = item
	}
	if item.operations[verb] != nil {
		d.leaveOut(m, b, "another method has the same verb and path")
		return nil
	}
	body, err := bodyOf(m, b)
	if err != nil {
		d.leaveOut(m, b, err.Error())
		return nil
	}
	op := &operation{document: d, method: m, binding: b, template: t, names: item.parameters, body: body}
	item.operations[verb] = op.write(id)
	if d.size > maxDocumentParts {
		return d.tooLarge()
	}
	return nil
}

func (d *document) leaveOut(m *schema.Method, b schema.Binding, why string) {
	d.leftOut = append(d.leftOut, object("method", m.Path).put("binding", b.Verb+" "+b.Template).put("reason", why))
}

// write puts the parts together.
func (d *document) write(o OpenAPIOptions) *ordered {
	info := object("title", cmp.Or(o.Title, "API")).put("version", cmp.Or(o.Version, "0"))
	doc := object("openapi", "3.1.0").put("info", info)
	if len(o.Servers) > 0 {
		var servers []any
		for _, url := range o.Servers {
			servers = append(servers, object("url", url))
		}
		doc.put("servers", servers)
	}
	if len(d.tags) > 0 {
		var tags []any
		for _, name := range slices.Sorted(maps.Keys(d.tags)) {
			tags = append(tags, object("name", name).putText("description", d.tags[name]))
		}
		doc.put("tags", tags)
	}
	doc.put("paths", d.writePaths())
	schemas := new(ordered)
	for _, name := range slices.Sorted(maps.Keys(d.schemas)) {
		schemas.put(name, d.schemas[name])
	}
	failed := object("description", "The RPC failed: the HTTP status is that of its code.").
		put("content", jsonContent(reference(statusName)))
	doc.put("components", object("schemas", schemas).put("responses", object(failedName, failed)))
	if len(d.leftOut) > 0 {
		doc.put("x-sluice-left-out", d.leftOut)
	}
	return doc
}

func (d *document) writePaths() *ordered {
	items := slices.SortedFunc(maps.Values(d.paths), func(a, b *pathItem) int { return cmp.Compare(a.path, b.path) })
	paths := new(ordered)
	for _, item := range items {
		operations := new(ordered)
		for _, verb := range verbs {
			if op := item.operations[verb]; op != nil {
				operations.put(strings.ToLower(verb), op)
			}
		}
		if len(operations.members) > 0 {
			paths.put(item.path, operations)
		}
	}
	return paths
}
