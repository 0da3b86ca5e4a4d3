// Verifies a case with crypto/x509.

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
)

var keyUsages = []struct {
	name  string
	value x509.ExtKeyUsage
}{
	{serverAuth, x509.ExtKeyUsageServerAuth},
	{clientAuth, x509.ExtKeyUsageClientAuth},
}

func verify(c *testCase) []result {
	if err := c.acceptsItsUsages(); err != nil {
		return []result{{tool: "go", err: err}}
	}
	wrongHost := result{tool: "go", said: "wrong-host-refused"}
	wrongHost.err = hostRefused(c.accepts(c.WrongHost, x509.ExtKeyUsageAny))
	return []result{{tool: "go", said: "ok"}, wrongHost}
}

// The certificate is good for each usage of the case, and for no other.
func (c *testCase) acceptsItsUsages() error {
	for _, usage := range keyUsages {
		err := c.accepts(c.Host, usage.value)
		if c.isFor(usage.name) && err != nil {
			return fmt.Errorf("%s: %w", usage.name, err)
		}
		if !c.isFor(usage.name) && err == nil {
			return fmt.Errorf("accepted for %s, which the case does not list", usage.name)
		}
	}
	return nil
}

func (c *testCase) accepts(host string, usage x509.ExtKeyUsage) error {
	_, err := c.leaf.Verify(x509.VerifyOptions{
		DNSName:       host,
		Roots:         c.roots,
		Intermediates: pool(c.intermediates),
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	return err
}

// Turns what became of the wrong host name round: nil if it was refused for being wrong.
func hostRefused(err error) error {
	var refusal x509.HostnameError
	if err == nil {
		return errors.New("accepted for the wrong host")
	}
	if !errors.As(err, &refusal) {
		return fmt.Errorf("the wrong host was refused for another reason: %w", err)
	}
	return nil
}
