// Reads a case.

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const (
	serverAuth = "server auth"
	clientAuth = "client auth"
)

type testCase struct {
	Host          string
	WrongHost     string
	Usages        []string
	Intermediates bool

	folder        string
	leaf          *x509.Certificate
	intermediates []*x509.Certificate
	roots         *x509.CertPool
}

func readCase(folder string) (*testCase, error) {
	c := &testCase{folder: folder}
	text, err := os.ReadFile(c.file("case.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("case.json: %w", err)
	}
	chain, err := certificates(c.file("tls.crt"))
	if err != nil {
		return nil, err
	}
	c.leaf, c.intermediates = chain[0], chain[1:]
	roots, err := certificates(c.file("ca.crt"))
	if err != nil {
		return nil, err
	}
	c.roots = pool(roots)
	return c, c.fault()
}

func (c *testCase) file(name string) string {
	return filepath.Join(c.folder, name)
}

func (c *testCase) isFor(usage string) bool {
	return slices.Contains(c.Usages, usage)
}

func (c *testCase) fault() error {
	unknown := func(usage string) bool { return usage != serverAuth && usage != clientAuth }
	switch {
	case c.Host == "" || c.WrongHost == "" || len(c.Usages) == 0:
		return errors.New("case.json: host, wrongHost and usages must not be empty")
	case slices.ContainsFunc(c.Usages, unknown):
		return fmt.Errorf("case.json: usages must be %q or %q", serverAuth, clientAuth)
	case c.Intermediates != (len(c.intermediates) > 0):
		return fmt.Errorf("intermediates is %t, but tls.crt has %d of them",
			c.Intermediates, len(c.intermediates))
	}
	return nil
}

// Reads a file of certificates in PEM, of which there must be at least one, and nothing else.
func certificates(file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for len(bytes.TrimSpace(rest)) > 0 || found == nil {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New(file + " does not consist of certificates in PEM")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		found = append(found, certificate)
	}
	return found, nil
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, certificate := range certificates {
		pool.AddCert(certificate)
	}
	return pool
}
