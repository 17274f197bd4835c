"""Whether Airflow's database can be read."""

from __future__ import annotations


def database_problem() -> str | None:
    """Why Airflow's database cannot be read, or ``None``.

    Airflow itself does not say: it reports a connection that it cannot read as missing.
    """
    from airflow.models import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with create_session() as session:
            session.execute(select(Variable.key).limit(1))
    except SQLAlchemyError as error:
        return (
            f"Airflow's database cannot be read ({type(error).__name__}): see 'airflow db check', "
            "and 'airflow db migrate' if it is new"
        )
    return None
