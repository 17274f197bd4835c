"""An artifact store for MLflow's server whose files go to and come from another host.

As an object store does it: the server hands out URLs, the client transfers the parts itself. A real
MLflow server loads it through its plugin door (``mlflow.artifact_repository``) for ``filehost:``.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from mlflow.entities.multipart_upload import (
    CreateMultipartUploadResponse,
    MultipartUploadCredential,
)
from mlflow.entities.presigned_download import PresignedDownloadUrlResponse
from mlflow.store.artifact.artifact_repo import MultipartDownloadMixin, MultipartUploadMixin
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository


class FileHostRepository(LocalArtifactRepository, MultipartUploadMixin, MultipartDownloadMixin):
    """Small files through MLflow, big ones straight to the file host, which shares the folder."""

    def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None):
        self._root = Path(artifact_uri.removeprefix("filehost://"))
        self._base = os.environ["MATRIX_FILE_HOST"]
        super().__init__(self._root.as_uri(), tracking_uri, registry_uri)

    def create_multipart_upload(self, local_file, num_parts, artifact_path=None):
        upload = uuid.uuid4().hex
        return CreateMultipartUploadResponse(
            upload_id=upload,
            credentials=[
                MultipartUploadCredential(f"{self._base}/.parts/{upload}/{number}", number, {})
                for number in range(1, num_parts + 1)
            ],
        )

    def complete_multipart_upload(self, local_file, upload_id, parts, artifact_path=None):
        target = self._root / (artifact_path or "") / Path(local_file).name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as whole:
            for part in sorted(parts, key=lambda part: part.part_number):
                whole.write(
                    (self._root / ".parts" / upload_id / str(part.part_number)).read_bytes()
                )

    def abort_multipart_upload(self, local_file, upload_id, artifact_path=None):
        """The parts are not looked at again."""

    def get_download_presigned_url(self, artifact_path, expiration=300):
        return PresignedDownloadUrlResponse(
            f"{self._base}/{artifact_path}", {}, (self._root / artifact_path).stat().st_size
        )
